"""Decoding, teacher labels, scoring, confidence intervals, tables and figures.

May import `model`, `data`, `corpora`, `plugins`, `config`, `utils`, `interfaces`, `languages` and `errors`.
"""
