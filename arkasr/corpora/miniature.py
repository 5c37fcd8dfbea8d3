"""The key `miniature` of corpus.yaml: the synthetic corpus that stage 0 writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["mini", "study", "text"]
KINDS = get_args(Kind)
_MOST_SENTENCES = 1_000_000  # of a synthetic part, about 2 months of synthesis


@dataclass
class Miniature:
    """The key `miniature`: the synthetic corpus that stage 0 writes at every scale but `paper`.

    Attributes:
        seed: Seed of sentences, voices and acoustics, from 0 to 2^63 - 1. The same seed gives the same files.
        sizes: Number of sentences of every part, from 1 to 1,000,000 each. WenetSpeech needs L >= M >= S.
        kind: `mini`: the parts of the miniature, with a vocabulary of about 40 words. `study`: a labelled part, an
            unlabelled pool, the teacher's own part, and test sets of 24 speakers, with 82 words. Only for
            `librispeech`. `text`: the sentences of a file, spoken by 120 voices. Only for `jsonl`.
        text: For the kind `text`: a text file with one sentence per line. A relative path begins at the folder of
            corpus.yaml. Parts take their sentences from it in turn, in the order of `sizes`.
    """

    seed: int
    sizes: dict[str, int]
    kind: Kind = "mini"
    text: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        if (self.kind == "text") != bool(self.text):
            raise ValueError(f"text must name a file for the kind text, and only for it; got {self.text!r}")
        for part, size in self.sizes.items():
            if not 1 <= size <= _MOST_SENTENCES:
                raise ValueError(f"sizes.{part} must be from 1 to {_MOST_SENTENCES}, got {size}")

    @property
    def identity(self) -> dict[str, Any]:
        """What the corpus depends on, but for the sentences. Older markers do not name the kind `mini`."""
        kind = {} if self.kind == "mini" else {"kind": self.kind}
        return {"seed": self.seed, "sizes": self.sizes} | kind
