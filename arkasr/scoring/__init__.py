"""Error rates of texts: normalisers, alignment counts, confidence intervals. No models, no files of experiments.

May import `config`, `utils`, `interfaces`, `languages` and `errors`.
"""
