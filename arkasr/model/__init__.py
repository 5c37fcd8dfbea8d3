"""The student, the models that can serve as teachers, and the code that loads, builds, runs and shards them.

Importing this subpackage registers Ark-ASR with transformers' auto classes and pipelines. It may import `config`,
`data`, `distributions`, `interfaces`, `languages`, `utils` and `errors`.
"""

import arkasr.model.arkasr.processing_arkasr
import arkasr.model.pipelines  # noqa: F401
