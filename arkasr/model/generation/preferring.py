"""Greedy decoding that prefers hotwords, and takes back those that it does not finish."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arkasr.model.generation.choosing import Choice
from arkasr.model.generation.decoding import EAGER_OR_CAPTURED, Generation, cut, run_batch
from arkasr.model.generation.state import FINISHED
from arkasr.model.generation.step_runner import StepMode
from arkasr.model.hotwords import HotwordTables
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.utils.devices import to_device

MOST_RETURNS = 200  # batches


@torch.no_grad()
def generate_preferring(
    lm: SpeechLM,
    prompts: Sequence[Tensor],
    caps: Sequence[int],
    hotwords: HotwordTables,
    mode: StepMode = EAGER_OR_CAPTURED,
) -> Generation:
    """Transcribe greedily with the bonus of hotwords, so that only whole hotwords have an effect.

    The bonus may make a transcript begin a hotword that does not go on as the audio does. Where that shows:

    1. The transcript ends.
    2. Its tokens before the hotword become a part of its prompt.
    3. It goes on there in another batch. Its next token does not begin or continue a hotword.

    After `MOST_RETURNS` batches, what is left is decoded without hotwords.

    Args:
        lm: The model.
        prompts: N tensors [S_i, H] from `SpeechLM.embed_prompts`.
        caps: N maximum numbers of tokens, the stop token included.
        hotwords: The hotwords, on the device of the model (see `hotword_tables`).
        mode: How decoding steps run.

    Returns:
        The transcripts, without top-k ids.

    Raises:
        UserError: See `generate`.
    """
    choices = [Choice(hotwords=hotwords, ends_unfinished=True)] * MOST_RETURNS + [Choice()]
    certain = [_Certain() for _ in prompts]
    clips = [clip for clip, cap in enumerate(caps) if cap > 0]
    for choice in choices:
        if not clips:
            break
        left = [caps[clip] - len(certain[clip].ids) for clip in clips]
        resumed = [certain[clip].resumed for clip in clips]
        batch = run_batch(lm, _prompts(lm, prompts, certain, clips), left, choice, mode=mode, resumed=resumed)
        found, matches, places = cut(batch, left, lm.stop_ids), batch.matches.tolist(), batch.unfinished.tolist()
        for row, clip in enumerate(clips):
            certain[clip].add(found.ids[row], matches[row], places[row], found.stopped[row])
        clips = [clip for clip, place in zip(clips, places) if place != FINISHED]
    ids = [each.ids for each in certain]
    nothing = torch.zeros(sum(map(len, ids)), 0, dtype=torch.long, device=lm.device)
    return Generation(ids, [each.stopped for each in certain], nothing)


class _Certain:
    """What is certain of one transcript: its tokens, and the state of the automaton before each of them."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.matches: list[int] = []
        self.resumed: int | None = None  # state at the end, if a hotword was left unfinished there
        self.stopped = False

    def add(self, ids: list[int], matches: list[int], place: int, stopped: bool) -> None:
        """Add the tokens of a batch, up to those of an unfinished hotword, which may have begun in an earlier batch."""
        if place == FINISHED:
            self.ids, self.resumed, self.stopped = self.ids + ids, None, stopped
            return
        end, states = len(self.ids) + place, self.matches + matches
        self.ids, self.matches, self.resumed = (self.ids + ids)[:end], states[:end], states[end]


def _prompts(
    lm: SpeechLM, prompts: Sequence[Tensor], certain: Sequence[_Certain], clips: Sequence[int]
) -> list[Tensor]:
    """Return the prompts of some clips, followed by the embeddings of their tokens."""
    table = lm.hf.get_input_embeddings()
    ids = to_device([i for clip in clips for i in certain[clip].ids], lm.device, torch.long)
    parts = table(ids).split([len(certain[clip].ids) for clip in clips])
    return [torch.cat([prompts[clip], part.to(prompts[clip].dtype)]) for clip, part in zip(clips, parts)]
