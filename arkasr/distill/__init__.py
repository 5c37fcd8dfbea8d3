"""Algorithm 1 of the paper: rollout, alignment, teacher scores, union support, loss, and the step's metrics.

May import `model`, `data`, `distributions`, `config`, `utils`, `interfaces` and `errors`.
"""
