"""Scores of one model by a vLLM server, clip by clip: ids go there, log-probabilities come back.

Two endpoints are used (two more at the start: http_handshake.py):
- POST /v1/chat/completions/render, once a clip: the audio as a data URL to processed features, which are opaque here;
- POST /inference/v1/generate: `token_ids`, ours from the first to the last, and these `features`. Scoring asks for
  `prompt_logprobs` and one new token that nobody reads. A second request may name the ids whose values are wanted
  (`prompt_logprob_token_ids`, a list a position, from `prompt_logprob_start` on); a base64 .npy answers it.
The prompt is built here and not by the server's chat template: ids, not text, are what both sides agree on.

Written from vLLM's documents and sources of 2026, and tested against a small server that speaks the same; not tried
against a vLLM that serves the published weights.
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
PORTIONS = 8  # requests that one clip's exact ids may take

Ends = tuple[list[int], list[int]]


@dataclass
class Prompt:
    """A clip's prompt: its token ids, audio tokens among them, and what the server made of the audio."""

    ids: list[int]
    features: dict[str, Any]


@dataclass
class Scored:
    """A transcript after its prompt, and what is known at each of its positions."""

    prompt: Prompt
    ids: list[int]
    rows: list[wire.Row]


@dataclass
class Scorer:
    """A model on a server. audio_id: the token that stands for audio; top_k: tokens a position that are asked for;
    concurrency: requests at a time. Every method raises UserError, which names the address, for a wrong answer.
    """

    server: Server
    model: str
    audio_id: int
    top_k: int
    concurrency: int

    def score(
        self, waveforms: Sequence[Tensor], ends: Sequence[Ends], token_ids: Sequence[Sequence[int]]
    ) -> list[Scored]:
        """Score B transcripts. ends: the ids before and after each clip's audio tokens."""
        return self._each(self._score, waveforms, ends, token_ids)

    def generate(self, waveforms: Sequence[Tensor], ends: Sequence[Ends], **params: Any) -> list[list[int]]:
        """Continue B prompts by vLLM's sampling parameters: B lists of token ids."""
        return self._each(lambda w, e: self._generate(w, e, params), waveforms, ends)

    def exact(self, scored: Sequence[Scored], rows: Tensor, ids: Tensor) -> Tensor:
        """Return log-probabilities float32 [R, U] of ids [R, U], -1 where nothing is asked; see `arkasr.SparseView`.

        rows: int64 [R], positions of the transcripts, clip after clip.
        """
        import torch

        ends = torch.tensor(list(accumulate(len(one.ids) for one in scored)))
        owner = torch.searchsorted(ends, rows, right=True)
        asked = owner.unique().tolist()
        first = [int(ends[i]) - len(scored[i].ids) for i in asked]
        parts = [(rows[owner == i] - start, ids[owner == i]) for i, start in zip(asked, first)]
        found = self._each(self._exact, [scored[i] for i in asked], parts)
        values = torch.empty(ids.shape)
        for i, answered in zip(asked, found):
            values[owner == i] = answered
        return values

    def exact_at(self, one: Scored, ids: Tensor) -> Tensor:
        """Return log-probabilities float32 [L, U] of ids [L, U] at all positions of one transcript."""
        start = len(one.prompt.ids) - 1
        params = {"prompt_logprob_token_ids": ids.tolist(), "prompt_logprob_start": start}
        return wire.read_exact(self._continue(one.prompt, one.ids, params), *ids.shape, self.server.url + GENERATE)

    def _each(self, work: Callable[..., Any], *lists: Sequence[Any]) -> list[Any]:
        """Do the work for each clip, several at a time; the results are in the clips' order."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(work, *lists))

    def _score(self, waveform: Tensor, ends: Ends, ids: Sequence[int]) -> Scored:
        prompt = self._render(waveform, ends)
        answer = self._continue(prompt, ids, {"prompt_logprobs": self.top_k})
        rows = wire.read_rows(answer, [*prompt.ids, *ids], len(ids), self.top_k, self.server.url + GENERATE)
        return Scored(prompt, list(ids), rows)

    def _generate(self, waveform: Tensor, ends: Ends, params: dict[str, Any]) -> list[int]:
        answer = self._continue(self._render(waveform, ends), [], params)
        return wire.read_tokens(answer, self.server.url + GENERATE)

    def _exact(self, one: Scored, wanted: tuple[Tensor, Tensor]) -> Tensor:
        """Ask for ids [R, U] at rows [R] of a transcript, at most top_k a request: as many the server is sure to allow.

        Where nothing is asked stands the token that was read, as the server wants an id everywhere.
        """
        import torch

        rows, ids = wanted
        if ids.shape[1] > PORTIONS * self.top_k:
            raise arkasr.UserError(
                f"{self.server.url}: {ids.shape[1]} more tokens a position are compared than a server can be asked for "
                f"({PORTIONS} times teacher.options.top_k): take a loss on the top-k support, or a local teacher"
            )
        table = torch.tensor(one.ids)[:, None].repeat(1, ids.shape[1])
        table[rows] = ids.where(ids >= 0, table[rows])
        return torch.cat([self.exact_at(one, part) for part in table.split(self.top_k, dim=1)], dim=1)[rows]

    def _render(self, waveform: Tensor, ends: Ends) -> Prompt:
        message = {"role": "user", "content": [wire.audio_part(waveform)]}
        answer = self._post(RENDER, {"messages": [message]})
        features, count = wire.read_rendered(answer, self.audio_id, self.server.url + RENDER)
        before, after = ends
        return Prompt([*before, *[self.audio_id] * count, *after], wire.moved(features, len(before), count))

    def _continue(self, prompt: Prompt, ids: Sequence[int], params: dict[str, Any]) -> dict[str, Any]:
        sampling = {"max_tokens": 1, "temperature": 1.0, "detokenize": False} | params
        body = {"token_ids": [*prompt.ids, *ids], "features": prompt.features, "sampling_params": sampling}
        return self._post(GENERATE, body | {"stream": False})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return self.server.post(path, {"model": self.model} | body)
        except Refused as error:
            if error.status not in (404, 405):
                raise
            raise Refused(f"{error}; a vLLM that has this endpoint is needed (docs/remote_teacher.md)", 404) from error
