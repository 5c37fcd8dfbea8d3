"""From a corpus on disk to Lhotse cuts: corpus.yaml, download, on-disk layouts, synthetic corpora.

May import `config`, `data`, `scoring`, `utils`, `interfaces`, `languages` and `errors`.
"""
