"""One step of on-policy distillation (OPD), Algorithm 1 of the paper (arXiv 2605.28139).

- `step`: Algorithm 1 for one micro-batch, and the loss on it.
- `rollout`: the transcripts to score (line 1).
- `support`: the tokens compared at each position (lines 4 and 6).
- `metrics`: the metrics of each step, which docs/metrics.md defines.
- `vuss`, `rollout_words`: VUSS by place, and at correct and wrong words of the student's transcripts.

May import `model`, `data`, `distributions`, `scoring`, `config`, `utils`, `interfaces`, `languages` and `errors`.
"""
