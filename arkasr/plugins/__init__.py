"""Finds plugins, imports each one separately, and keeps the table of registered names.

May import `config`, `hookspecs`, `interfaces` and `errors`. It imports the built-ins by module name.
"""
