"""One loop for supervised training, teacher data and on-policy distillation."""
