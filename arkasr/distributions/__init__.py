"""Views on next-token distributions, and losses over large vocabularies that never build a [P, V] table.

May import `interfaces`, `utils` and `errors`.
"""
