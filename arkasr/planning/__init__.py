"""Prediction of the memory, operations and time of a run from its configuration, without loading weights.

May import `model`, `plugins`, `distributions`, `config`, `utils` and `errors`.
"""
