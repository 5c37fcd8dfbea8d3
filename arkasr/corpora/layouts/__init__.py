"""The on-disk layouts of LibriSpeech, AISHELL-1 and WenetSpeech.

May import `corpora.corpus`, `utils`, `interfaces` and `errors`.
"""
