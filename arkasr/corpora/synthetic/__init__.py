"""Synthetic corpora for the miniature recipes: espeak-ng speech written in a real corpus's layout.

May import `interfaces` and `errors`.
"""
