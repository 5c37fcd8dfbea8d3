"""The configuration of a run: its schema, its YAML layers, and the checks on every key.

May import `errors` only.
"""
