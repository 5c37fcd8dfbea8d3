"""The teachers, token mappers and losses that ship with arkasr, registered through the same hooks as any plugin.

May import the public interface (`import arkasr`) only; only `plugins.registry` imports it, by module name.
"""
