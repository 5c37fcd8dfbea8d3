"""Several models on the same files: their texts side by side, with error rates if there are references.

- `names`: short names of models for columns.
- `references`: the reference of each file.
- `compare`: transcribe with each model in turn, and score.
- `columns`: texts of several models, aligned with one of them or with the reference.
- `side_by_side`: the terminal output.

May import `evaluation`, `scoring` and every subpackage below, and the other modules of `transcription`.
"""
