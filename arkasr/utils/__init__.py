"""Console output, timing, and durable files.

May import `errors` from arkasr, and tqdm. `timing` and `devices` also import torch, inside functions.
"""
