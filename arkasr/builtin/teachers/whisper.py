"""Whisper as a teacher: an encoder-decoder that hears each clip in one window of 30 s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr
from arkasr.builtin.teachers.local import LocalTeacherOptions

if TYPE_CHECKING:
    from torch import Tensor

HOP = 160  # samples per mel frame
STOP = "<|endoftext|>"
MULTILINGUAL = 51865  # tokens: English-only checkpoints, whose tokenizers know the names of languages too, have fewer


@dataclass
class WhisperOptions(LocalTeacherOptions):
    """path: folder or Hub id; dtype: of its weights; max_new_tokens: cap of a transcript when it transcribes;
    allow_pickle: read weights from pytorch_model.bin where there are no safetensors.
    """

    path: str = "openai/whisper-large-v3"


class WhisperTeacher:
    """A frozen Whisper in this process: scores transcript rows only, in its own dtype; told the corpus's language.

    Clips are padded with silence to the model's window, as it was trained. Its transcripts begin with a space and are
    punctuated; a student that writes otherwise is scored as it writes.
    """

    def __init__(self, options: WhisperOptions, device: str = "cpu"):
        from transformers import WhisperForConditionalGeneration

        self.options, self.device, kinds = options, device, {"whisper": WhisperForConditionalGeneration}
        self.model, self.tokenizer = arkasr.load_pretrained(options.path, kinds, options.dtype, options.allow_pickle)
        self.model.to(device).eval().requires_grad_(False)
        self.vocab, given = self.tokenizer.get_vocab(), self.model.generation_config
        self.multilingual = getattr(given, "is_multilingual", self.model.config.vocab_size >= MULTILINGUAL)
        self.prompt("English")  # a tokenizer that lacks what the prompt needs is found here
        self.stop_ids = [self.vocab[STOP]]
        self.blocked = self._blocked(given.suppress_tokens or [])
        self.first_blocked = self.blocked.clone()
        self.first_blocked[given.begin_suppress_tokens or []] = True

    def _blocked(self, suppressed: list[int]) -> Tensor:
        """Mark, bool [V], what `transcribe` never writes: added tokens, timestamps, and what the checkpoint names."""
        import torch

        blocked = torch.arange(self.model.config.vocab_size, device=self.device) >= len(self.tokenizer)
        blocked[[*self.tokenizer.added_tokens_decoder, *suppressed]] = True
        blocked[self.stop_ids] = False
        return blocked

    def prompt(self, language: str) -> list[int]:
        """Return the ids before a transcript. Raises UserError for a language or a tokenizer that does not do."""
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        code, path = TO_LANGUAGE_CODE.get(language.lower(), ""), self.options.path
        tokens = ["<|startoftranscript|>", f"<|{code}|>", "<|transcribe|>", "<|notimestamps|>"]
        known = [name.title() for name, code in TO_LANGUAGE_CODE.items() if f"<|{code}|>" in self.vocab]
        if not self.multilingual:
            tokens, known = [tokens[0], tokens[-1]], ["English"]
        if language.title() not in known:
            raise arkasr.UserError(f"language {language!r}: {path} knows {', '.join(known)}; name one in the manifest")
        if missing := [token for token in (*tokens, STOP) if token not in self.vocab]:
            raise arkasr.UserError(f"{path}: the tokenizer lacks {', '.join(missing)}, part of the prompt")
        return [self.vocab[token] for token in tokens]

    def encode(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Encode B clips into states [B, max_source_positions, d].

        Raises UserError for a clip that is empty, not finite, or longer than the window.
        """
        from torch.nn.functional import pad

        arkasr.check_waveforms(waveforms)
        config = self.model.config
        samples = 2 * config.max_source_positions * HOP
        if (longest := max(map(len, waveforms))) > samples:
            raise arkasr.UserError(
                f"a clip of {longest / arkasr.SAMPLE_RATE:.2f} s is longer than the {samples / arkasr.SAMPLE_RATE:g} s that "
                f"{self.options.path} hears; set data.max_clip_seconds to {samples / arkasr.SAMPLE_RATE:g} or less"
            )
        padded = [pad(w, (0, samples - len(w))) for w in waveforms]
        mel, _ = arkasr.log_mel(padded, config.num_mel_bins, self.device)
        return self.model.model.encoder(mel.to(self.model.dtype)).last_hidden_state

    def score(self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]):
        """Score transcripts by teacher forcing; see `arkasr.Teacher`.

        Decoder inputs are padded on the right, where causal attention never looks. Raises UserError for a transcript
        that is longer than the decoder.
        """
        import torch

        prompts, limit = [self.prompt(language) for language in languages], self.model.config.max_target_positions
        rows = [[*prompt, *ids[:-1]] for prompt, ids in zip(prompts, token_ids)]
        longest = max(map(len, rows))
        if longest > limit:
            raise arkasr.UserError(
                f"a transcript of {longest + 1 - len(prompts[0])} tokens is longer than the "
                f"{limit + 1 - len(prompts[0])} that {self.options.path} can read; lower rollout.max_new_tokens"
            )
        inputs = torch.tensor([row + self.stop_ids * (longest - len(row)) for row in rows], device=self.device)
        with torch.no_grad():
            heard = self.encode(waveforms)
            states = self.model.model.decoder(inputs, encoder_hidden_states=heard, use_cache=False).last_hidden_state
            ends = [(len(prompt) - 1, len(row)) for prompt, row in zip(prompts, rows)]
            kept = torch.cat([state[start:end] for state, (start, end) in zip(states, ends)])
            return arkasr.DenseView(arkasr.head_logits(kept, self.model.proj_out.weight))

    def transcribe(self, waveforms: Sequence[Tensor], languages: Sequence[str]) -> list[str]:
        """Transcribe greedily and without timestamps; what the checkpoint's generation config suppresses stays out."""
        import torch

        with torch.no_grad():
            written = self._greedy(self.encode(waveforms), [self.prompt(language) for language in languages])
        texts = [row[: row.index(self.stop_ids[0])] if self.stop_ids[0] in row else row for row in written.tolist()]
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return [self.tokenizer.decode(ids, **options).strip() for ids in texts]

    def _greedy(self, heard: Tensor, prompts: list[list[int]]) -> Tensor:
        """Write after B prompts until all have stopped or the cap: ids [B, written]."""
        import torch
        from transformers import DynamicCache, EncoderDecoderCache

        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        cap = min(self.options.max_new_tokens, self.model.config.max_target_positions + 1 - len(prompts[0]))
        inputs, written = torch.tensor(prompts, device=self.device), []
        stopped = torch.zeros(len(prompts), dtype=torch.bool, device=self.device)
        decoder = self.model.model.decoder
        cached = {arkasr.cache_argument(decoder): cache, "use_cache": True}
        while len(written) < cap and not bool(stopped.all()):
            read = decoder(inputs, encoder_hidden_states=heard, **cached)
            logits = arkasr.head_logits(read.last_hidden_state[:, -1], self.model.proj_out.weight)
            chosen = logits.masked_fill(self.blocked if written else self.first_blocked, -torch.inf).argmax(-1)
            stopped, inputs = stopped | (chosen == self.stop_ids[0]), chosen[:, None]
            written.append(chosen)
        return torch.stack(written, dim=1)


@arkasr.hookimpl
def register_teachers(register):
    """Register the teacher."""
    register("whisper", WhisperTeacher, WhisperOptions)
