"""Console output, timing, durable files, and the meeting and the end of processes.

May import `errors` from arkasr, and tqdm. `timing` and `devices` also import torch, inside functions. `rendezvous`
imports torch.
"""
