"""The teacher `whisper`: an encoder-decoder that encodes audio in windows of 30 s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr
from arkasr.builtin.teachers.local import LocalTeacherOptions, control_tokens
from arkasr.builtin.teachers.windows import join_transcripts, split_at_quiet

if TYPE_CHECKING:
    from torch import Tensor

HOP = 160  # samples per mel frame
STOP = "<|endoftext|>"
WHISPER_CODES = {"jv": "jw", "fil": "tl"}  # where Whisper's code is not the one of ISO 639
# Vocabulary size from which a checkpoint is multilingual. The tokenizers of English-only ones have language tokens too.
MULTILINGUAL = 51865


@dataclass
class WhisperOptions(LocalTeacherOptions):
    """Options of `whisper`. See `LocalTeacherOptions`."""

    path: str = "openai/whisper-large-v3"


class WhisperTeacher:
    """A frozen Whisper in the training process.

    The language of the corpus is part of the prompt. Clips are padded with silence to the window of the model, as in
    its training. Only transcript positions are scored, in the dtype of the teacher's weights. Whisper writes a leading
    space and punctuation. The transcripts of a student that writes otherwise are scored unchanged.

    A longer clip is transcribed in several windows, split at quiet places. It cannot be scored.
    """

    def __init__(self, options: WhisperOptions, device: str = "cpu"):
        """Load and freeze the model.

        Args:
            options: Options of the teacher.
            device: torch device of the model.

        Raises:
            UserError: If `options.path` cannot be loaded, or if its tokenizer lacks tokens of the prompt.
        """
        from transformers import WhisperForConditionalGeneration

        self.options, self.device, kinds = options, device, {"whisper": WhisperForConditionalGeneration}
        self.model, self.tokenizer = arkasr.load_pretrained(options.path, kinds, options.dtype, options.allow_pickle)
        self.model.to(device).eval().requires_grad_(False)
        self.window = 2 * self.model.config.max_source_positions * HOP  # samples
        self.vocab, generation = self.tokenizer.get_vocab(), self.model.generation_config
        self.multilingual = getattr(generation, "is_multilingual", self.model.config.vocab_size >= MULTILINGUAL)
        self.prompt("English")  # raises early if the tokenizer lacks tokens of the prompt
        self.stop_ids = [self.vocab[STOP]]
        self.blocked = self._blocked(generation.suppress_tokens or [])
        size, masks = len(self.blocked), options.mask_control_tokens
        self.hidden = control_tokens(self.tokenizer, self.stop_ids[0], size, device) if masks else None
        self.first_blocked = self.blocked.clone()
        self.first_blocked[generation.begin_suppress_tokens or []] = True

    def _blocked(self, suppressed: list[int]) -> Tensor:
        """Return bool [V]: tokens that `transcribe` never writes (added tokens, timestamps, `suppressed`)."""
        import torch

        blocked = torch.arange(self.model.config.vocab_size, device=self.device) >= len(self.tokenizer)
        blocked[[*self.tokenizer.added_tokens_decoder, *suppressed]] = True
        blocked[self.stop_ids] = False
        return blocked

    def prompt(self, language: str) -> list[int]:
        """Return the ids before a transcript.

        Args:
            language: English name of the language, such as "English".

        Returns:
            Token ids.

        Raises:
            UserError: If the checkpoint does not support the language, or if the tokenizer lacks tokens of the prompt.
        """
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        found, path = arkasr.known_language(language), self.options.path
        code = WHISPER_CODES.get(found.code, found.code) if found else ""
        tokens = ["<|startoftranscript|>", f"<|{code}|>", "<|transcribe|>", "<|notimestamps|>"]
        known = [name.title() for name, code in TO_LANGUAGE_CODE.items() if f"<|{code}|>" in self.vocab]
        if not self.multilingual:
            tokens, known = [tokens[0], tokens[-1]], ["English"]
        if not found or (f"<|{code}|>" not in self.vocab if self.multilingual else found.code != "en"):
            raise arkasr.UserError(
                f"language {language!r}: {path} supports {', '.join(known)}; set one in the manifest"
            )
        if missing := [token for token in (*tokens, STOP) if token not in self.vocab]:
            raise arkasr.UserError(
                f"{path}: the tokenizer lacks {', '.join(missing)}, which the prompt needs; copy the model again"
            )
        return [self.vocab[token] for token in tokens]

    def encode(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Encode audio.

        Args:
            waveforms: B tensors [num_samples], float32, at 16 kHz.

        Returns:
            Tensor [B, max_source_positions, d], states of the encoder.

        Raises:
            UserError: If a waveform is empty, not finite, or longer than the window of the model.
        """
        arkasr.check_waveforms(waveforms)
        samples = self.window
        if (longest := max(map(len, waveforms))) > samples:
            window = f"{samples / arkasr.SAMPLE_RATE:g}"
            raise arkasr.UserError(
                f"a clip has {longest / arkasr.SAMPLE_RATE:.2f} s, but {self.options.path} accepts at most {window} s; "
                f"set `data.max_clip_seconds` to {window} or less"
            )
        mel, _ = arkasr.log_mel(waveforms, self.model.config.num_mel_bins, self.device, min_samples=samples)
        return self.model.model.encoder(mel.to(self.model.dtype)).last_hidden_state

    def score(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]
    ) -> arkasr.DenseView:
        """Score transcripts by teacher forcing. See `arkasr.Teacher.score`.

        Decoder inputs are padded on the right, which causal attention never reads.

        Raises:
            UserError: If a transcript is longer than the decoder allows. For audio see `encode`.
        """
        import torch

        prompts, limit = [self.prompt(language) for language in languages], self.model.config.max_target_positions
        rows = [[*prompt, *ids[:-1]] for prompt, ids in zip(prompts, token_ids)]
        longest = max(map(len, rows))
        if longest > limit:
            raise arkasr.UserError(
                f"a transcript has {longest + 1 - len(prompts[0])} tokens, but {self.options.path} accepts at most "
                f"{limit + 1 - len(prompts[0])}; lower `rollout.max_new_tokens`"
            )
        inputs = torch.tensor([row + self.stop_ids * (longest - len(row)) for row in rows], device=self.device)
        with torch.no_grad():
            audio_states = self.encode(waveforms)
            decoder = self.model.model.decoder
            states = decoder(inputs, encoder_hidden_states=audio_states, use_cache=False).last_hidden_state
            ends = [(len(prompt) - 1, len(row)) for prompt, row in zip(prompts, rows)]
            kept = torch.cat([state[start:end] for state, (start, end) in zip(states, ends)])
            logits = arkasr.head_logits(kept, self.model.proj_out.weight)
        return arkasr.DenseView(logits, self.hidden)

    def transcribe(self, waveforms: Sequence[Tensor], languages: Sequence[str]) -> list[str]:
        """Transcribe greedily and without timestamps. See `arkasr.Teacher.transcribe`.

        Tokens that the checkpoint's generation config suppresses are never written. Clips that are longer than the
        window of the model are split at quiet places. The token limits then hold for each window.

        Returns:
            B `arkasr.Transcript` objects.
        """
        arkasr.check_waveforms(waveforms)
        windows = [split_at_quiet(waveform, self.window) for waveform in waveforms]
        languages_of_windows = [language for language, parts in zip(languages, windows) for _ in parts]
        texts = iter(self._transcribe_windows([part for parts in windows for part in parts], languages_of_windows))
        return [join_transcripts([next(texts) for _ in parts], language) for language, parts in zip(languages, windows)]

    def _transcribe_windows(self, windows: Sequence[Tensor], languages: Sequence[str]) -> list[arkasr.Transcript]:
        import torch

        prompts, stop = [self.prompt(language) for language in languages], self.stop_ids[0]
        longest = min(self.options.max_new_tokens, self.model.config.max_target_positions + 1 - len(prompts[0]))
        caps = arkasr.token_caps(windows, longest, self.options.tokens_per_second)
        with torch.no_grad():
            written = self._greedy(self.encode(windows), prompts, caps)
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        texts = [self.tokenizer.decode([i for i in ids if i != stop], **options).strip() for ids in written]
        return [
            arkasr.Transcript(text, ids[-1] == stop, arkasr.is_looping(ids, self.stop_ids), len(ids))
            for text, ids in zip(texts, written)
        ]

    def _greedy(self, audio_states: Tensor, prompts: list[list[int]], caps: list[int]) -> list[list[int]]:
        """Decode after B prompts. Return the B lists of ids, each up to its stop token or its maximum number."""
        import torch
        from transformers import DynamicCache, EncoderDecoderCache

        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        inputs, limits = torch.tensor(prompts, device=self.device), torch.tensor(caps, device=self.device)
        written: list[Tensor] = []
        done = torch.zeros(len(prompts), dtype=torch.bool, device=self.device)
        decoder = self.model.model.decoder
        cached = {arkasr.cache_argument(decoder): cache, "use_cache": True}
        while not bool(done.all()):
            states = decoder(inputs, encoder_hidden_states=audio_states, **cached).last_hidden_state
            logits = arkasr.head_logits(states[:, -1], self.model.proj_out.weight)
            chosen = logits.masked_fill(self.blocked if written else self.first_blocked, -torch.inf).argmax(-1)
            written.append(chosen)
            done, inputs = done | (chosen == self.stop_ids[0]) | (limits <= len(written)), chosen[:, None]
        rows = [row[:cap] for row, cap in zip(torch.stack(written, dim=1).tolist(), caps)]
        return [row[: row.index(self.stop_ids[0]) + 1] if self.stop_ids[0] in row else row for row in rows]


@arkasr.hookimpl
def register_teachers(register):
    """Register the teacher by name.

    Args:
        register: See `arkasr.hookspecs`.
    """
    register("whisper", WhisperTeacher, WhisperOptions)
