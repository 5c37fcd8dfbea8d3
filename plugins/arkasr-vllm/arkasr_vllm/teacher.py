"""A teacher behind a server: Qwen3-ASR, run by vLLM on another machine. The wire format: http_scoring.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import arkasr
from arkasr_vllm.options import HttpTeacherOptions

if TYPE_CHECKING:
    from torch import Tensor

BEFORE = "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|>"
AFTER = "<|audio_end|><|im_end|>\n<|im_start|>assistant\nlanguage {language}<asr_text>"
AUDIO, STOPS = "<|audio_pad|>", ("<|im_end|>", "<|endoftext|>")
SENTENCE = "The quick brown fox, \u4f60\u597d\u4e16\u754c 123."  # what the handshake has the server read


class HttpTeacher:
    """A Qwen3-ASR that a vLLM server runs elsewhere: only ids and log-probabilities come over the wire. How the server
    is started, and what it cannot do: docs/remote_teacher.md.
    """

    def __init__(self, options: HttpTeacherOptions, device: str = "cpu"):
        """Greet the server. Here as in `score` and `transcribe` UserError says, with the address, that it is down, slow,
        serves another model, or answers what cannot be this model's scores of what was sent.
        """
        from arkasr_vllm import handshake
        from arkasr_vllm.client import Server
        from arkasr_vllm.scoring import Scorer

        self.options, self.device = options, device
        key = os.environ.get(options.api_key_env, "")
        server = Server(options.url.rstrip("/"), key, options.timeout, options.retries, options.wait)
        handshake.check_model(server, options.model)
        self.tokenizer = handshake.load_tokenizer(options.tokenizer, (*STOPS, AUDIO, "<asr_text>"))
        self.stop_ids = [self.tokenizer.convert_tokens_to_ids(token) for token in STOPS]
        text = BEFORE + AFTER.format(language="English") + SENTENCE
        handshake.check_tokenizer(server, options.model, text, self._ids(text), options.tokenizer)
        audio_id = self.tokenizer.convert_tokens_to_ids(AUDIO)
        self.scorer = Scorer(server, options.model, audio_id, options.top_k, options.concurrency)
        tone = handshake.check_hearing(self.scorer, self._ends("English"), [*self._ids(SENTENCE), self.stop_ids[0]])
        self.exact = handshake.offers_exact(self.scorer, tone, options.exact_ids)

    def score(self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]):
        """Score transcripts by teacher forcing; see `arkasr.Teacher`. Refuses the clips and languages that the local
        teacher refuses.
        """
        from arkasr_vllm.wire import table

        arkasr.check_waveforms(waveforms)
        scored = self.scorer.score(waveforms, [self._ends(language) for language in languages], token_ids)
        ids, values = table([row for one in scored for row in one.rows])
        vocab_size = max(len(self.tokenizer), int(ids.max()) + 1)  # a model may have rows past its tokenizer's end
        exact = partial(self.scorer.exact, scored) if self.exact else None
        return arkasr.SparseView(ids.to(self.device), values.to(self.device), vocab_size, exact)

    def transcribe(self, waveforms: Sequence[Tensor], languages: Sequence[str]) -> list[str]:
        """Transcribe greedily; special tokens other than the stop ids are never chosen."""
        arkasr.check_waveforms(waveforms)
        silent = {*self.tokenizer.added_tokens_decoder, self.tokenizer.unk_token_id} - {None, *self.stop_ids}
        made = self.scorer.generate(
            waveforms,
            [self._ends(language) for language in languages],
            max_tokens=self.options.max_new_tokens,
            temperature=0.0,
            stop_token_ids=self.stop_ids,
            logit_bias={str(i): -100.0 for i in sorted(silent)},
        )
        return [self._text([i for i in ids if i not in self.stop_ids]) for ids in made]

    def _ends(self, language: str) -> tuple[list[int], list[int]]:
        from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

        if language not in (known := sorted(LANGUAGE_CODE_TO_NAME.values())):
            raise arkasr.UserError(
                f"language {language!r}: Qwen3-ASR knows {', '.join(known)}; name one in the manifest"
            )
        return self._ids(BEFORE), self._ids(AFTER.format(language=language))

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


@arkasr.hookimpl
def register_teachers(register):
    """Register the teacher that a server runs."""
    register("qwen3_asr_http", HttpTeacher, HttpTeacherOptions)
