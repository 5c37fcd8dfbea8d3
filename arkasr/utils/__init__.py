"""Console output and timing.

May import the standard library and tqdm only.
"""
