"""Hotwords in `model.generate` of transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from arkasr.model.hotwords.automaton import hotword_automaton
from arkasr.model.hotwords.compiled import DEFAULT_WEIGHT, to_tables
from arkasr.model.hotwords.tables import HotwordTables


class HotwordProcessor(LogitsProcessor):
    """Adds the bonus of hotwords to the scores of each step. Greedy search, sampling and beams can use it.

    It keeps nothing between steps: the state of the automaton depends on the last tokens only, as many as the longest
    hotword has.

    Example::

        inputs = processor.apply_transcription_request("clip.wav")
        hotwords = HotwordProcessor(["ARK ASR"], processor.tokenizer, inputs["input_ids"].shape[1])
        ids = model.generate(**inputs, logits_processor=[hotwords])

    Args:
        hotwords: Words and phrases, at least one.
        tokenizer: The model's tokenizer.
        prompt_length: Number of prompt tokens per row, padding included, behind which transcripts begin.
        weight: Bonus per token (see `hotword_tables`).

    Raises:
        UserError: See `hotword_automaton`.
    """

    def __init__(
        self,
        hotwords: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        prompt_length: int,
        weight: float = DEFAULT_WEIGHT,
    ):
        self.prompt_length = prompt_length
        self._automaton = hotword_automaton(hotwords, tokenizer, weight)
        self._tables: HotwordTables | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add the bonus.

        Args:
            input_ids: Tensor [B, prompt_length + L], int64, prompts and the tokens so far.
            scores: Tensor [B, V], logits or log-probabilities of the next token.

        Returns:
            Tensor [B, V].
        """
        if self._tables is None or len(self._tables.outside) != scores.shape[1]:
            self._tables = to_tables(self._automaton, scores.shape[1])
        self._tables = self._tables.to(scores.device)
        states = _state(self._tables, input_ids[:, self.prompt_length :])
        return self._tables.add_bonus(scores.float().clone(), states).to(scores.dtype)


def _state(tables: HotwordTables, ids: Tensor) -> Tensor:
    """Return the states [B] after transcripts [B, L]. Only the last tokens can be those of a match."""
    states = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    start = max(0, ids.shape[1] - tables.depth)
    if start:
        states = tables.outside[ids[:, start - 1]]
    for place in range(start, ids.shape[1]):
        states = tables.next(states, ids[:, place])
    return states
