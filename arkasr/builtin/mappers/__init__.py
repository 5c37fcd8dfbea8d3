"""The token mappers `identity`, `shared_strings` and `byte_offsets`.

May import the public interface (`import arkasr`) only.
"""
