"""Decoding of test sets and teacher labels, on all ranks, and the records of both.

May import `scoring`, `model`, `data`, `corpora`, `plugins`, `config`, `utils`, `interfaces`, `languages` and `errors`.
"""
