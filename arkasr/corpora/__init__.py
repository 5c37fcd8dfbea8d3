"""Corpora: facts of a corpus (`corpus.yaml`), its on-disk layout, and the way from there to Lhotse cuts."""
