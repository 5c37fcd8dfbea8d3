"""Greedy and sampled decoding with preallocated key-value caches.

- `decoding`: continue prompts until a stop id or a token cap.
- `preferring`: greedy decoding that prefers hotwords.
- `batch`: one batch of prompts from the first token to the last.
- `engine`: the memory and the captured steps of one model.
- `schedule`: which batch sizes and lengths the caches have, and when finished transcripts leave the batch.
- `state`: the memory of one batch and the decoding step, which reads nothing on the host.
- `cache`: keys and values as transformers' decoders read them.
- `step_runner`: the step run eagerly, through torch.compile, or as a CUDA graph.
- `graph_pool`: captures of CUDA graphs that share memory.
- `weights`, `merging`: the decoder and head that generate, which may be a copy in another dtype.
- `late_flags`: flags that the host reads while the device continues to work.
- `choosing`: the choice of the next token.
- `transcripts`: token caps and loops.
- `stitching`: transcripts of windows that share audio, joined to one.

May import `model.hotwords`, `model.speech_lm`, `distributions`, `utils`, `interfaces` and `errors`.
"""

from arkasr.model.generation.decoding import Generation, generate
from arkasr.model.generation.preferring import generate_preferring
from arkasr.model.generation.step_runner import StepMode
from arkasr.model.generation.transcripts import is_looping, token_caps
from arkasr.model.generation.weights import cache_argument

__all__ = ["Generation", "StepMode", "cache_argument", "generate", "generate_preferring", "is_looping", "token_caps"]
