"""The teachers, token mappers and losses that ship with arkasr. They register through the same hooks as any plugin.

May import the public interface (`import arkasr`) only. Only `plugins.registry` imports it, by module name.
"""
