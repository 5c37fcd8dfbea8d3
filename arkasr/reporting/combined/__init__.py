"""The tables of `arkasr table`: the published ones, with the scores of several experiments.

May import `evaluation`, `scoring`, `utils` and `errors`.
"""
