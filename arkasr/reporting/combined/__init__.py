"""The tables of `arkasr table`, over several experiments."""
