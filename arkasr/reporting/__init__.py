"""Scores of an experiment, tables, figures and reports.

May import `evaluation`, `scoring`, `data`, `corpora`, `plugins`, `config`, `utils`, `interfaces`, `languages` and
`errors`.
"""
