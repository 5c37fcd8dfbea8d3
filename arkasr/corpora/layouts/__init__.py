"""The on-disk layouts of corpora: of published ones, and of your own audio as tables, Lhotse manifests or data sets.

May import `corpora.corpus`, `config`, `utils`, `interfaces`, `languages` and `errors`.
"""
