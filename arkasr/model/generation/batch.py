"""One batch of prompts from the first token to the last: when to look at finished rows, and when they leave."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arkasr.model.generation.choosing import Choice
from arkasr.model.generation.engine import Engine
from arkasr.model.generation.late_flags import LateFlags
from arkasr.model.generation.schedule import Schedule
from arkasr.model.generation.state import FINISHED
from arkasr.model.generation.step_runner import StepMode
from arkasr.utils.devices import to_device


class DecodingBatch:
    """N prompts, of which B rows, padding rows included, are in the present state.

    Args:
        engine: Memory and steps of the model.
        schedule: The shapes.
        choice: How tokens are chosen.
        lengths: N numbers of prompt positions.
        caps: N token caps, of which at least one is positive.
        top_k: k.

    Attributes:
        ids: Tensor [N, W], int64, the tokens of each prompt, W the largest cap. What follows a stop id or the cap has
            no meaning.
        topk: Tensor [N, W, k], int64, the best ids at each step.
        unfinished: Tensor [N], int64, see `DecodingState`.
        matches: Tensor [N, W], int64, see `DecodingState`.
        clips: Prompt of each of the present rows, without padding rows.
    """

    def __init__(
        self,
        engine: Engine,
        schedule: Schedule,
        choice: Choice,
        lengths: Sequence[int],
        caps: Sequence[int],
        top_k: int,
    ):
        self.engine, self.schedule, self.choice = engine, schedule, choice
        self.lengths, self.caps, self.steps = list(lengths), [max(cap, 0) for cap in caps], max(caps)
        self.clips = list(range(len(lengths)))
        self.length = schedule.length(max(lengths) + min(self.steps, schedule.ahead))
        self.state = engine.state(schedule.rows(len(lengths)), self.length, top_k)
        device = self.state.ids.device
        self.ids = torch.zeros(len(lengths), self.steps, dtype=torch.long, device=device)
        self.topk = torch.zeros(len(lengths), self.steps, top_k, dtype=torch.long, device=device)
        self.unfinished, self.matches = torch.full((len(lengths),), FINISHED, device=device), torch.zeros_like(self.ids)
        self._flags: LateFlags | None = None

    def read_prompts(self, prompts: Sequence[Tensor], resumed: Sequence[int | None] = ()) -> None:
        """Read the prompts and choose the first token of each.

        Args:
            prompts: N tensors [S_i, H]. Padding rows read one position of zeros.
            resumed: For N prompts the `match` of an earlier batch, if a prompt goes on where a hotword was left
                unfinished. None for other prompts. Empty: all are others.
        """
        extra, dtype = self.state.rows - len(prompts), self.engine.weights.dtype
        padding = [prompts[0].new_zeros(1, prompts[0].shape[1])] * extra
        embeds = pad_sequence([*prompts, *padding], batch_first=True).to(dtype)
        numbers = to_device([self.lengths + [1] * extra, self.caps + [0] * extra], embeds.device)
        matches = [0 if match is None else match for match in resumed] + [0] * extra
        goes_on = [match is not None for match in resumed] + [False] * extra
        found = (to_device(matches, embeds.device), to_device(goes_on, embeds.device)) if any(goes_on) else None
        self.state.memory.zero_()  # attention multiplies what it does not read by zero, which keeps NaN
        self.state.prefill(embeds, numbers[0], numbers[1], self.choice, found)

    def run(self, mode: StepMode) -> None:
        """Decode until all rows are finished.

        Args:
            mode: How steps run.
        """
        count = 1
        while count < self.steps and not (count % self.schedule.every == 0 and self._all_finished(count)):
            span = self.schedule.length(max(self.lengths[clip] for clip in self.clips) + count)
            if span > self.length:
                self._lengthen(span)
            equal = {self.lengths[clip] + count for clip in self.clips} == {span}
            self.engine.step(self.state, span, self.choice, mode, full=equal and self.state.rows == len(self.clips))
            count += 1
        self._keep(range(len(self.clips)), count)

    def _all_finished(self, count: int) -> bool:
        """Look at which rows are finished, and take them out of the batch if that pays."""
        flags, self._flags = self._flags, LateFlags(self.state.done)
        flags = flags if self.schedule.late else self._flags
        if flags is None:
            return False
        done = flags.read()[: len(self.clips)]
        left = [row for row, is_done in enumerate(done) if not is_done]
        if left and len(left) < len(done) and self.schedule.rows(len(left)) <= self.schedule.shrink * self.state.rows:
            self._keep([row for row, is_done in enumerate(done) if is_done], count)
            self._shrink(left)
        return not left

    def _shrink(self, left: list[int]) -> None:
        rows = self.schedule.rows(len(left))
        padding = [left[0]] * (rows - len(left))
        self._move([*left, *padding])
        self.clips, self._flags = [self.clips[row] for row in left], None

    def _lengthen(self, span: int) -> None:
        """Double the slots, up to those of the longest possible transcript."""
        longest = self.schedule.length(max(self.lengths[clip] for clip in self.clips) + self.steps)
        self.length = min(self.schedule.length(2 * span), longest)
        self._move(list(range(self.state.rows)))

    def _move(self, rows: list[int]) -> None:
        """Continue some rows in a state of `self.length` slots."""
        state = self.engine.state(len(rows), self.length, self.topk.shape[-1])
        state.take_rows(self.state, to_device(rows, self.ids.device, torch.long))
        self.state = state

    def _keep(self, rows: Sequence[int], count: int) -> None:
        """Copy the first `count` tokens of some rows to the result."""
        clips = to_device([self.clips[row] for row in rows], self.ids.device, torch.long)
        index = to_device(list(rows), self.ids.device, torch.long)
        self.ids[clips, :count] = self.state.ids[index, :count]
        self.topk[clips, :count] = self.state.topk[index, :count]
        self.matches[clips, :count] = self.state.matches[index, :count]
        self.unfinished[clips] = self.state.unfinished[index]
