"""Console output, timing, and durable files.

May import `errors` from arkasr, and tqdm. `timing` also imports torch, inside a function.
"""
