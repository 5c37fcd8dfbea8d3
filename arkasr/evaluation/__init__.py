"""Evaluation: transcripts of the test sets, their error rates, and the tables and figures made from them."""
