"""The choice of the next token: greedy, or drawn from the whole distribution or its nucleus.

Shapes: B transcripts, V vocabulary size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from arkasr.model.hotwords import HotwordTables


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen.

    Attributes:
        temperature: 0 chooses the best token. Otherwise logits are divided by it before drawing.
        top_p: Nucleus to draw from. 1 uses all tokens.
        generator: Source of the random draws. None uses torch's global generator.
        hotwords: Hotwords whose bonus is added to the logits before. None adds nothing.
        ends_unfinished: Whether a row ends where it leaves a hotword unfinished that the bonus has changed its tokens
            for.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    generator: torch.Generator | None = None
    hotwords: HotwordTables | None = None
    ends_unfinished: bool = False

    def __call__(self, logits: Tensor, best: Tensor) -> Tensor:
        """Choose one token per transcript.

        Args:
            logits: Tensor [B, V], float32, -inf for blocked tokens.
            best: Tensor [B, k], int64, the k >= 1 best tokens, best first.

        Returns:
            Tensor [B], int64.
        """
        if self.temperature == 0.0:
            return best[:, 0]
        probs = (logits / self.temperature).softmax(-1).nan_to_num(0.0)
        lost = probs.sum(-1, keepdim=True) == 0  # logits of a diverged model: draw as greedy decoding does
        probs = probs.scatter_add(-1, best[:, :1], lost.to(probs.dtype))
        probs = nucleus(probs, self.top_p) if self.top_p < 1.0 else probs
        return torch.multinomial(probs, 1, generator=self.generator)[:, 0]


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Set the probabilities outside the nucleus to 0 (Holtzman et al. 2020, arXiv 1904.09751, section 3.1).

    Args:
        probs: Tensor [B, V], probabilities.
        top_p: The nucleus is the smallest set of most likely tokens whose probabilities sum to at least this.

    Returns:
        Tensor [B, V]. The remaining probabilities are unchanged, not renormalised.
    """
    best, order = probs.sort(-1, descending=True)
    before = best.cumsum(-1) - best
    return torch.zeros_like(probs).scatter(-1, order, best.masked_fill(before >= top_p, 0.0))
