"""Algorithm 1: rollout, alignment, teacher scores, union support, loss, and what is measured on the way."""
