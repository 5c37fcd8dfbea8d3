"""Teacher `qwen3_asr_http`: Qwen3-ASR on a vLLM server. `scoring` describes the endpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import arkasr
from arkasr_vllm.options import HttpTeacherOptions

if TYPE_CHECKING:
    from torch import Tensor

PROMPT_PREFIX = "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|>"
PROMPT_SUFFIX = "<|audio_end|><|im_end|>\n<|im_start|>assistant\nlanguage {language}<asr_text>"
AUDIO_TOKEN, STOP_TOKENS = "<|audio_pad|>", ("<|im_end|>", "<|endoftext|>")
PROBE_TEXT = "The quick brown fox, \u4f60\u597d\u4e16\u754c 123."  # tokenized and scored by the checks at the start


class HttpTeacher:
    """Qwen3-ASR on a vLLM server. Token ids and log-probabilities are transferred, not logits.

    README.md of this package describes how to start the server, and the limits.
    """

    def __init__(self, options: HttpTeacherOptions, device: str = "cpu"):
        """Connect to the server and check it; see `handshake`.

        Args:
            options: Address, model and limits of requests.
            device: Device of the views that `score` returns.

        Raises:
            UserError: The server cannot be reached, serves another model or tokenizer, or returns numbers that cannot
                be this model's scores. The message names the address. `score` and `transcribe` raise it too.
        """
        from arkasr_vllm import handshake, wire
        from arkasr_vllm.client import Server
        from arkasr_vllm.scoring import Scorer

        self.options, self.device = options, device
        key = os.environ.get(options.api_key_env, "")
        server = Server(options.url.rstrip("/"), key, options.timeout, options.deadline, options.retries, options.wait)
        handshake.check_model(server, options.model)
        self.tokenizer = handshake.load_tokenizer(options.tokenizer, (*STOP_TOKENS, AUDIO_TOKEN, "<asr_text>"))
        self.stop_ids = [self.tokenizer.convert_tokens_to_ids(token) for token in STOP_TOKENS]
        text = PROMPT_PREFIX + PROMPT_SUFFIX.format(language="English") + PROBE_TEXT
        handshake.check_tokenizer(server, options.model, text, self._ids(text), options.tokenizer)
        audio_id = self.tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)
        self.scorer = Scorer(
            server, options.model, audio_id, options.top_k, options.concurrency, len(self.tokenizer) + wire.SPARE_IDS
        )
        probe = [*self._ids(PROBE_TEXT), self.stop_ids[0]]
        tone = handshake.check_audio_is_used(self.scorer, self._affixes("English"), probe)
        self.exact = handshake.supports_exact_ids(self.scorer, tone, options.exact_ids)

    def score(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]
    ) -> arkasr.DistributionView:
        """Score transcripts by teacher forcing.

        See `arkasr.Teacher.score` for the arguments.

        Returns:
            A `SparseView` of P positions. It knows the best `top_k` tokens and the transcript's token per position.
            With exact ids it requests other tokens when they are read.

        Raises:
            UserError: A clip or language that the teacher `qwen3_asr` refuses too, or a failed request.
        """
        from arkasr_vllm.wire import pad_rows

        arkasr.check_waveforms(waveforms)
        scored = self.scorer.score(waveforms, [self._affixes(language) for language in languages], token_ids)
        ids, values = pad_rows([row for clip in scored for row in clip.rows])
        vocab_size = max(len(self.tokenizer), int(ids.max()) + 1)  # a model may have more rows than its tokenizer
        exact: Callable[[Tensor, Tensor], Tensor] | None = partial(self.scorer.exact, scored) if self.exact else None
        return arkasr.SparseView(ids.to(self.device), values.to(self.device), vocab_size, exact)

    def transcribe(self, waveforms: Sequence[Tensor], languages: Sequence[str]) -> list[str]:
        """Transcribe greedily. Special tokens other than the stop tokens are excluded.

        See `arkasr.Teacher.transcribe` for the arguments.

        Returns:
            B `arkasr.Transcript` objects. `stopped` follows the server's finish_reason.

        Raises:
            UserError: A clip or language that the teacher `qwen3_asr` refuses too, or a failed request.
        """
        arkasr.check_waveforms(waveforms)
        blocked = {*self.tokenizer.added_tokens_decoder, self.tokenizer.unk_token_id} - {None, *self.stop_ids}
        generated = self.scorer.generate(
            waveforms,
            [self._affixes(language) for language in languages],
            arkasr.token_caps(waveforms, self.options.max_new_tokens, self.options.tokens_per_second),
            temperature=0.0,
            stop_token_ids=self.stop_ids,
            logit_bias={str(i): -100.0 for i in sorted(blocked)},
        )
        return [self._transcript(ids, reason) for ids, reason in generated]

    def _transcript(self, ids: list[int], reason: str | None) -> arkasr.Transcript:
        text = self._text([i for i in ids if i not in self.stop_ids])
        stopped = reason == "stop" if reason in ("stop", "length") else bool(ids) and ids[-1] in self.stop_ids
        return arkasr.Transcript(text, stopped, arkasr.is_looping(ids, self.stop_ids), len(ids))

    def _affixes(self, language: str) -> tuple[list[int], list[int]]:
        """Return the prompt's token ids before and after the audio."""
        from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME

        found, known = arkasr.known_language(language), sorted(LANGUAGE_CODE_TO_NAME.values())
        if found is None or found.name not in known:
            raise arkasr.UserError(
                f"language {language!r}: Qwen3-ASR supports {', '.join(known)}; set one of them in the manifest"
            )
        return self._ids(PROMPT_PREFIX), self._ids(PROMPT_SUFFIX.format(language=found.name))

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


@arkasr.hookimpl
def register_teachers(register: Callable[..., Any]) -> None:
    """Register `qwen3_asr_http`.

    Args:
        register: See `arkasr.hookspecs.Register`.
    """
    register("qwen3_asr_http", HttpTeacher, HttpTeacherOptions)
