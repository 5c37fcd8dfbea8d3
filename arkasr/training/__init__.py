"""The training loop for supervised training and on-policy distillation, with checkpoints and fault handling.

May import `evaluation`, `distill`, `planning` and every subpackage below them.
"""
