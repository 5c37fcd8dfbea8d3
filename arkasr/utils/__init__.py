"""Console output, timing, durable files, and the meeting and the end of processes.

May import `errors` from arkasr, and tqdm. `timing`, `devices` and `rendezvous` also import torch, inside
functions.
"""
