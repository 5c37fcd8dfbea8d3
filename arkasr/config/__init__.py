"""Configurations: their schema, their YAML layers, and the checks of every key.

May import `errors`, `languages` and `utils`.
"""
