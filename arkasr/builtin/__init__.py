"""Plugins that ship inside, registered through the same hooks as any other; they see arkasr's public face only."""
