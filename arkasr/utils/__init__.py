"""Console output and timing.

May import the standard library and tqdm only. `timing` also imports torch, inside a function.
"""
