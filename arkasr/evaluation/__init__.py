"""Decoding, teacher labels, scoring, confidence intervals, tables and figures.

May import `model`, `data`, `plugins`, `config`, `utils`, `interfaces`, `languages` and `errors`.
"""
