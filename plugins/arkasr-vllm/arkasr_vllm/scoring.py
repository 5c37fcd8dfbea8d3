"""Scores from a vLLM server, one clip per request: token ids are sent, log-probabilities are returned.

Two endpoints are used (`handshake` uses two more at the start):

- POST /v1/chat/completions/render, once per clip: the audio, as a data URL, to processed features. They are passed on
  unread.
- POST /inference/v1/generate: `token_ids`, prompt and transcript as made here, and these `features`. Scoring requests
  `prompt_logprobs` and one new token, which is not used. A second request may name token ids
  (`prompt_logprob_token_ids`, one list per position, from `prompt_logprob_start` on). A base64 .npy answers it.

The prompt is built here and not by the server's chat template, because ids, not text, must agree on both sides.

Written from vLLM's documents and sources of 2026, and tested against a small server of the same format. It has not
been tried against a vLLM server with the published weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import arkasr
from arkasr_vllm import wire
from arkasr_vllm.client import Refused, Server

if TYPE_CHECKING:
    from torch import Tensor

RENDER, GENERATE = "/v1/chat/completions/render", "/inference/v1/generate"
MAX_EXACT_REQUESTS = 8  # per clip and call of `exact`

Affixes = tuple[list[int], list[int]]  # the prompt's token ids before and after the audio


@dataclass
class Prompt:
    """The prompt of one clip."""

    ids: list[int]  # token ids, audio tokens included
    features: dict[str, Any]  # the audio as the server processed it


@dataclass
class ScoredClip:
    """A transcript under its prompt, with scores."""

    prompt: Prompt
    ids: list[int]  # L token ids of the transcript
    rows: list[wire.Row]  # L rows: log-probabilities by token id


@dataclass
class Scorer:
    """A model on a server. Every method raises UserError, which names the address, for a wrong response."""

    server: Server
    model: str  # the model's name on the server
    audio_id: int  # id of the audio placeholder token
    top_k: int  # requested tokens per position
    concurrency: int  # simultaneous requests
    num_ids: int  # ids from 0 to below this number are tokens

    def score(
        self, waveforms: Sequence[Tensor], affixes: Sequence[Affixes], token_ids: Sequence[Sequence[int]]
    ) -> list[ScoredClip]:
        """Score B transcripts.

        Args:
            waveforms: B float tensors [num_samples] at 16 kHz.
            affixes: B pairs of token ids, before and after the clip's audio tokens.
            token_ids: B transcripts.

        Returns:
            B scored transcripts, in the order of the clips.
        """
        return self._map(self._score, waveforms, affixes, token_ids)

    def generate(
        self, waveforms: Sequence[Tensor], affixes: Sequence[Affixes], caps: Sequence[int], **params: Any
    ) -> list[tuple[list[int], str | None]]:
        """Continue B prompts.

        Args:
            waveforms: B float tensors [num_samples] at 16 kHz.
            affixes: B pairs of token ids, before and after the clip's audio tokens.
            caps: B maximum numbers of tokens.
            **params: Further sampling parameters of vLLM.

        Returns:
            B pairs: generated token ids, and the reason of the end, see `wire.read_tokens`.
        """
        work = lambda waveform, affix, cap: self._generate(waveform, affix, {"max_tokens": cap} | params)  # noqa: E731
        return self._map(work, waveforms, affixes, caps)

    def exact(self, scored: Sequence[ScoredClip], rows: Tensor, ids: Tensor) -> Tensor:
        """Request the log-probabilities of chosen token ids; see `exact` of `arkasr.SparseView`.

        Args:
            scored: B scored transcripts with P positions in all.
            rows: int64 [R], positions among the P.
            ids: int64 [R, U], -1 for nothing.

        Returns:
            float32 [R, U], log-probabilities in nats.
        """
        import torch

        ends = torch.tensor(list(accumulate(len(clip.ids) for clip in scored)))
        owner = torch.searchsorted(ends, rows, right=True)
        clips = owner.unique().tolist()
        starts = [int(ends[i]) - len(scored[i].ids) for i in clips]
        parts = [(rows[owner == i] - start, ids[owner == i]) for i, start in zip(clips, starts)]
        results = self._map(self._exact, [scored[i] for i in clips], parts)
        values = torch.empty(ids.shape)
        for i, result in zip(clips, results):
            values[owner == i] = result
        return values

    def exact_at(self, clip: ScoredClip, ids: Tensor) -> Tensor:
        """Request the log-probabilities of chosen token ids at all positions of one transcript.

        Args:
            clip: A scored transcript of L tokens.
            ids: int64 [L, U].

        Returns:
            float32 [L, U], log-probabilities in nats.
        """
        start = len(clip.prompt.ids) - 1
        params = {"prompt_logprob_token_ids": ids.tolist(), "prompt_logprob_start": start}
        response = self._continue(clip.prompt, clip.ids, params)
        num_rows, width = ids.shape
        return wire.read_exact(response, num_rows, width, self.server.url + GENERATE)

    def _map(self, work: Callable[..., Any], *lists: Sequence[Any]) -> list[Any]:
        """Do the work of all clips, several at once, and return the results in the order of the clips."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(work, *lists))

    def _score(self, waveform: Tensor, affixes: Affixes, ids: Sequence[int]) -> ScoredClip:
        prompt = self._render(waveform, affixes)
        response = self._continue(prompt, ids, {"prompt_logprobs": self.top_k})
        where = self.server.url + GENERATE
        rows = wire.read_rows(response, [*prompt.ids, *ids], len(ids), self.top_k, self.num_ids, where)
        return ScoredClip(prompt, list(ids), rows)

    def _generate(self, waveform: Tensor, affixes: Affixes, params: dict[str, Any]) -> tuple[list[int], str | None]:
        response = self._continue(self._render(waveform, affixes), [], params)
        return wire.read_tokens(response, self.num_ids, self.server.url + GENERATE)

    def _exact(self, clip: ScoredClip, wanted: tuple[Tensor, Tensor]) -> Tensor:
        """Request ids [R, U] at rows [R] of one transcript, in requests of at most top_k ids, which the server allows.

        The server needs an id in every place, so the transcript's own token is requested where `ids` is -1.
        """
        import torch

        rows, ids = wanted
        if ids.shape[1] > MAX_EXACT_REQUESTS * self.top_k:
            raise arkasr.UserError(
                f"{self.server.url}: the loss needs {ids.shape[1]} further tokens per position, more than "
                f"{MAX_EXACT_REQUESTS} times teacher.options.top_k; use a loss on the top-k support, or a local teacher"
            )
        table = torch.tensor(clip.ids)[:, None].repeat(1, ids.shape[1])
        table[rows] = ids.where(ids >= 0, table[rows])
        return torch.cat([self.exact_at(clip, part) for part in table.split(self.top_k, dim=1)], dim=1)[rows]

    def _render(self, waveform: Tensor, affixes: Affixes) -> Prompt:
        message = {"role": "user", "content": [wire.audio_part(waveform)]}
        response = self._post(RENDER, {"messages": [message]})
        features, count = wire.read_rendered(response, self.audio_id, self.server.url + RENDER)
        before, after = affixes
        return Prompt([*before, *[self.audio_id] * count, *after], wire.place_audio(features, len(before), count))

    def _continue(self, prompt: Prompt, ids: Sequence[int], params: dict[str, Any]) -> dict[str, Any]:
        sampling = {"max_tokens": 1, "temperature": 1.0, "detokenize": False} | params
        body = {"token_ids": [*prompt.ids, *ids], "features": prompt.features, "sampling_params": sampling}
        rows = len(prompt.ids) + len(ids) + sampling["max_tokens"]
        width = (
            sampling.get("prompt_logprobs", 0)
            + 1
            + max(map(len, sampling.get("prompt_logprob_token_ids", [])), default=0)
        )
        return self._post(GENERATE, body | {"stream": False}, rows * width * wire.MAX_ENTRY_BYTES)

    def _post(self, path: str, body: dict[str, Any], expected: int = 0) -> dict[str, Any]:
        try:
            return self.server.post(path, {"model": self.model} | body, expected)
        except Refused as error:
            if error.status not in (404, 405):
                raise
            hint = "use a vLLM version that has this endpoint (see the README of arkasr-vllm)"
            raise Refused(f"{error}; {hint}", 404) from error
