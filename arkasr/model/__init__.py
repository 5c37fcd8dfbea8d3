"""The student, the models that can be teachers, and what loads, builds, runs and shards them.

May import `config`, `distributions`, `interfaces` and `errors`. Importing it registers Ark-ASR with transformers.
"""

import arkasr.model.arkasr.processing_arkasr  # noqa: F401
