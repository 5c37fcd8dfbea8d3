"""The limit of tokens of each text of a batch, in `generate` of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

LIMITS = {"max_new_tokens", "max_length"}


class TokenCaps(StoppingCriteria):
    """Ends each row at its own number of tokens. `generate` has one limit for all rows.

    Args:
        caps: B numbers of tokens. With beams, each holds for all rows of its clip.
    """

    def __init__(self, caps: Sequence[int]):
        self._caps = torch.tensor(caps)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        """Return which rows have ended.

        Args:
            input_ids: Tensor [B * beams, tokens so far]. The prompt is not in it, as it is embedded.
            scores: Unused.
            **kwargs: Unused.

        Returns:
            Tensor [B * beams], bool.
        """
        caps = self._caps.to(input_ids.device)
        return input_ids.shape[1] >= caps.repeat_interleave(len(input_ids) // len(caps))


def sets_limit(options: Mapping[str, Any]) -> bool:
    """Return whether options of `generate` set a limit of tokens.

    Args:
        options: The options. `generation_config` may set one too.

    Returns:
        True if they do.
    """
    config = options.get("generation_config")
    named = {**(config.to_diff_dict() if config is not None else {}), **options}
    return any(named.get(key) is not None for key in LIMITS)


def with_caps(options: Mapping[str, Any], caps: Sequence[int]) -> dict[str, Any]:
    """Add limits of tokens to options of `generate`, beside the stopping criteria that they have.

    Args:
        options: The options.
        caps: B numbers of tokens.

    Returns:
        Options that end each text of a batch at its limit.
    """
    criteria = StoppingCriteriaList([TokenCaps(caps), *(options.get("stopping_criteria") or [])])
    return {**options, "stopping_criteria": criteria}
