"""Finds plugins, loads each one separately, and keeps the table of registered names.

May import `config`, `hookspecs`, `interfaces` and `errors`; it imports built-ins by module name.
"""
