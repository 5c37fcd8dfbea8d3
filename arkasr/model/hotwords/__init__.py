"""Hotwords: words and phrases that decoding prefers, by a trie of tokens whose bonus is added to the logits.

- `words`: which characters belong to one word.
- `phrases`: the token sequences in which a hotword can occur.
- `automaton`: the trie with its back-off, on the host.
- `tables`: the automaton as tensors, which need no host read per step.
- `compiled`: lists of hotwords as tables, which are kept.
- `processor`: the same tables as a logits processor of transformers.

May import `model.tokenization` and `errors`.
"""

from arkasr.model.hotwords.compiled import DEFAULT_WEIGHT, hotword_tables
from arkasr.model.hotwords.processor import HotwordProcessor
from arkasr.model.hotwords.tables import HotwordTables

__all__ = ["DEFAULT_WEIGHT", "HotwordProcessor", "HotwordTables", "hotword_tables"]
