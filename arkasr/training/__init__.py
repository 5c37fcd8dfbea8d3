"""The training loop for supervised training, teacher data and on-policy distillation, with checkpoints and fault handling.

May import `evaluation`, `distill`, `planning` and every room below them.
"""
