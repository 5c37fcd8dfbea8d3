"""The student, native, and the wrapper through which every recogniser is trained, sampled and scored.

Importing any of it registers the student with transformers' Auto classes.
"""

import arkasr.model.processing  # noqa: F401
