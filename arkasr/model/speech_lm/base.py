"""SpeechLM: one interface for student and teacher, so that training, rollout, scoring and decoding share one path.

Shapes: B clips, M mel filters, T mel frames, N_i audio tokens and S_i prompt positions of clip i, L_i transcript tokens
of clip i, P = sum(L_i) scored positions, H the decoder's hidden size, V vocabulary size.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copymode
from typing import Any, TypeVar, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, Qwen2Model, Qwen3Model

from arkasr.config.schema import DecodeConfig
from arkasr.data.waveforms import Waveforms
from arkasr.errors import ClipTooLongError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.model.arkasr.prompt import require_tokens
from arkasr.model.encoder_cache import EncoderCache, is_frozen
from arkasr.model.length_groups import length_groups
from arkasr.model.log_mel import HOP, check_waveforms, frame_mask, log_mel, num_frames
from arkasr.model.spec_augment import SpecAugment
from arkasr.model.tokenization import blocked_ids
from arkasr.model.weight_digests import write_digests
from arkasr.utils.devices import to_device

T = TypeVar("T")


class SpeechLM(nn.Module, ABC):
    """A causal language model with audio in its prompt: text, audio tokens, text, then the transcript.

    Padding is masked in the encoder; outputs do not depend on batch composition. The one exception is Ark-ASR with
    `mask_padding=False` (see ArkasrConfig).

    Args:
        hf: The Hugging Face model.
        tokenizer: Its tokenizer, with the special tokens of the prompt.

    Attributes:
        hf: The Hugging Face model.
        tokenizer: Its tokenizer.
        stop_ids: Ids that end a transcript. The first one is appended to transcripts for training and scoring.
        blocked: Tensor [V], bool, ids that must not occur in a transcript (`tokenization.blocked_ids`).
        blocked_ids: The same ids as a set on the host.
        ctc_head: Auxiliary linear layer [H to V + 1] on the audio embeddings, for training from scratch, or None. It is
            not part of the exported model, and has a file beside the final model of a run (`ctc_head`).
        ctc_tokenizer: The tokens of the CTC head, None for those of the model. V is then their number.
        encoder_cache: Keeps the encoder's outputs while the encoder is frozen, or None. It is only asked for audio
            without masks.

    Raises:
        UserError: The tokenizer lacks special tokens of the prompt.
    """

    stop_tokens: tuple[str, ...] = ("<|im_end|>",)
    blocked: Tensor

    def __init__(self, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.hf, self.tokenizer = hf, tokenizer
        self.ctc_head: nn.Linear | None = None
        self.ctc_tokenizer: Tokenizer | None = None
        self.encoder_cache: EncoderCache | None = None
        needed = {*self.stop_tokens, *re.findall("<[^<>]+>", "".join(self.prompt_text("English")))}
        require_tokens(tokenizer, needed)
        self.stop_ids = cast(list[int], tokenizer.convert_tokens_to_ids(list(self.stop_tokens)))
        with torch.device("cpu"):  # a draft is built on the meta device, which has no values
            blocked = blocked_ids(tokenizer, self.stop_ids, hf.config.text_config.vocab_size)
        self.register_buffer("blocked", blocked.to(torch.get_default_device()), persistent=False)
        self.blocked_ids = frozenset(blocked.nonzero()[:, 0].tolist())

    def forward(self, work: Callable[[SpeechLM], T]) -> T:
        """Run a function on this model.

        FSDP2 gathers the weights outside of blocks only inside `forward`, so all work on a sharded model enters here.

        Args:
            work: A function of the model.

        Returns:
            The result of `work`.
        """
        return work(self)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.blocked.device

    @property
    def num_mel(self) -> int:
        """Number of mel filters M that the audio encoder reads."""
        return self.hf.config.audio_config.num_mel_bins

    @property
    def max_seconds(self) -> float | None:
        """Longest clip in seconds that the audio encoder accepts, or None if there is no limit."""
        return None

    def features(self, waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute log-mel features on the model's device, with their mask.

        Args:
            waveforms: B floating-point tensors [num_samples] at 16 kHz.

        Returns:
            Features [B, M, T], float32, and mask [B, T], int64, 1 in the frames of the clip and 0 in padding.
        """
        mel = self.mel(Waveforms.of(waveforms))
        return mel, frame_mask(self.count_frames(waveforms), mel)

    def mel(self, waveforms: Waveforms) -> Tensor:
        """Compute log-mel features on the model's device.

        Args:
            waveforms: B waveforms at 16 kHz.

        Returns:
            Tensor [B, M, T], float32. Do not change it: other models may share it.
        """
        return log_mel(waveforms, self.num_mel, self.device)[0]

    def count_frames(self, waveforms: Sequence[Tensor]) -> list[int]:
        """Count the mel frames of each clip that the encoder reads, from the numbers of samples.

        Args:
            waveforms: B tensors [num_samples] at 16 kHz.

        Returns:
            B counts, at most T of `features`.
        """
        return [num_frames(w) for w in waveforms]

    @abstractmethod
    def count_audio_tokens(self, frames: Sequence[int]) -> list[int]:
        """Count the audio tokens of each clip.

        Args:
            frames: Mel frames of each clip, see `count_frames`.

        Returns:
            B counts N_i.
        """

    @abstractmethod
    def encoder_rows(self, mel: Tensor, frames: Sequence[int]) -> Tensor:
        """Encode log-mel features, without reading from the device.

        Args:
            mel: Tensor [B, M, T] from `mel`, in the dtype of the weights.
            frames: Mel frames of each clip.

        Returns:
            Tensor [sum(N_i), D], the adapter's input, one row per audio token, clip after clip.
        """

    @abstractmethod
    def prompt_text(self, language: str) -> tuple[str, str]:
        """Return the text of the prompt.

        Args:
            language: English name of the language of the clip, such as "Chinese".

        Returns:
            The text before and the text after the audio tokens.
        """

    def encode_audio(self, waveforms: Sequence[Tensor], masks: SpecAugment | None = None) -> list[Tensor]:
        """Compute the audio embeddings of B clips. For waveforms on the host, the host never waits for the device.

        Args:
            waveforms: B floating-point tensors [num_samples] at 16 kHz, on any device. A `Waveforms` object is copied
                to the device once, whatever models encode it.
            masks: Hides parts of the features. None hides nothing.

        Returns:
            B tensors [N_i, H], one row per audio token.

        Raises:
            ClipTooLongError: One of the clips is longer than `max_seconds`.
            UserError: See `log_mel.check_waveforms`.
        """
        clips = Waveforms.of(waveforms)
        check_waveforms(clips)
        self._check_lengths(clips)
        rows = self.hf.model.multi_modal_projector(self._encoded(clips, masks))
        return list(rows.split(self.count_audio_tokens(self.count_frames(clips))))

    def _encoded(self, clips: Waveforms, masks: SpecAugment | None) -> Tensor:
        """Return the adapter's input [sum(N_i), D], from the cache if the encoder is frozen."""
        if self.encoder_cache is not None and masks is None:
            if is_frozen(self.hf.model.audio_tower):
                return self.encoder_cache(clips, lambda clip: self._computed(Waveforms.of(clip), None), self.device)
            self.encoder_cache.release()
        return self._computed(clips, masks)

    def _computed(self, clips: Waveforms, masks: SpecAugment | None) -> Tensor:
        frames, mel = self.count_frames(clips), self.mel(clips)
        mel = mel if masks is None else masks(mel, frames)
        return self.encoder_rows(mel.to(next(self.hf.model.audio_tower.parameters()).dtype), frames)

    def _check_lengths(self, waveforms: Sequence[Tensor]) -> None:
        limit = self.max_seconds
        longest = max((num_frames(w) for w in waveforms), default=0) * HOP / SAMPLE_RATE
        if limit is not None and longest > limit:
            raise ClipTooLongError(
                f"a clip has {longest:.2f} s, but the encoder of this model has positions for {limit:g} s; use shorter "
                f"clips (data.max_clip_seconds: {limit:g}), or an encoder with rotary positions"
            )

    def embed_prompts(self, audio: Sequence[Tensor], languages: Sequence[str]) -> list[Tensor]:
        """Insert audio embeddings into their prompts.

        Args:
            audio: B tensors [N_i, H] from `encode_audio`.
            languages: B English names of languages.

        Returns:
            B tensors [S_i, H].
        """
        names = sorted(set(languages))
        ends = self._embed([self._ids(text) for language in names for text in self.prompt_text(language)])
        around = dict(zip(names, zip(ends[::2], ends[1::2])))
        return [torch.cat([around[of][0], a.to(ends[0].dtype), around[of][1]]) for a, of in zip(audio, languages)]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _embed(self, token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Embed B sequences [L_i] as tensors [L_i, H].

        All share one call, because each call costs a gradient of the whole table [V, H] in backward.
        """
        ids = to_device([i for row in token_ids for i in row], self.device, torch.long)
        return list(self.hf.get_input_embeddings()(ids).split([len(row) for row in token_ids]))

    def transcript_states(self, prompts: Sequence[Tensor], token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Compute the hidden states that predict each transcript token, by teacher forcing.

        `states @ head.T` are the logits. Sequences are padded on the right, where causal attention does not look, so
        the result for each clip does not depend on batch composition. Without gradient, clips of similar length form
        groups, which saves padding. A sharded model runs once, because all ranks must gather its weights equally often.

        Args:
            prompts: B tensors [S_i, H] from `embed_prompts`.
            token_ids: B transcripts of L_i ids, the stop id included. At least one id each.

        Returns:
            Tensor [P, H], the decoder's last hidden states, clip after clip.
        """
        text = self._embed([ids[:-1] for ids in token_ids])
        inputs = [torch.cat([p, t.to(p.dtype)]) for p, t in zip(prompts, text)]
        once = torch.is_grad_enabled() or isinstance(self, FSDPModule)
        groups = [range(len(inputs))] if once else length_groups([len(i) for i in inputs])
        states: dict[int, Tensor] = {}
        options = {"attention_mask": self._causal_masks(), "use_cache": False}
        for clips in groups:
            batch = pad_sequence([inputs[i] for i in clips], batch_first=True)
            last = self.hf.model.language_model(inputs_embeds=batch, **options).last_hidden_state
            ends = ((len(prompts[i]) - 1, len(inputs[i])) for i in clips)
            states |= {i: row[start:end] for i, row, (start, end) in zip(clips, last, ends)}
        return torch.cat([states[i] for i in range(len(inputs))])

    def _causal_masks(self) -> dict[str, None] | None:
        """Return the masks of whole causal attention, or None, so that transformers builds and checks masks.

        It would make the host wait for the device at every call. sdpa needs no mask, and Qwen decoders accept one per
        kind of layer.
        """
        decoder = self.hf.model.language_model
        accepts = isinstance(decoder, (Qwen2Model, Qwen3Model)) and decoder.config._attn_implementation == "sdpa"
        whole = accepts and set(decoder.config.layer_types) == {"full_attention"}
        return {"full_attention": None} if whole else None

    @property
    def head(self) -> Tensor:
        """Weight [V, H] of the output head."""
        return self.hf.lm_head.weight

    @property
    def suppressed_ids(self) -> list[int]:
        """Ids that an exported model never generates, for `suppress_tokens` of its generation_config.json."""
        return cast(list[int], self.blocked.nonzero()[:, 0].tolist())

    def text_ids(self, text: str) -> list[int]:
        """Tokenise a transcript.

        Args:
            text: The transcript.

        Returns:
            Its ids, with the first stop id at the end.
        """
        return [*self.tokenizer.encode(text, add_special_tokens=False), self.stop_ids[0]]

    def text(self, ids: Sequence[int]) -> str:
        """Convert the ids of a transcript to text.

        Args:
            ids: Token ids, with or without stop id.

        Returns:
            The text without special tokens and without spaces at its ends.
        """
        kept = [i for i in ids if i not in self.stop_ids]
        text = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return cast(str, text).strip()

    def add_ctc_head(self, tokenizer: Tokenizer | None = None) -> None:
        """Add the CTC head with fresh weights, in the data type of the adapter. The last class is the blank.

        Args:
            tokenizer: The tokens of the head. None: those of the model.
        """
        text, adapter = self.hf.config.text_config, self.hf.model.multi_modal_projector
        dtype = next(adapter.parameters()).dtype
        self.ctc_tokenizer, tokens = tokenizer, tokenizer.get_vocab_size() if tokenizer else text.vocab_size
        self.ctc_head = nn.Linear(text.hidden_size, tokens + 1).to(dtype)

    def ctc_ids(self, text: str) -> list[int]:
        """Tokenise a transcript for the CTC head.

        Args:
            text: The transcript.

        Returns:
            Its ids, without stop id.
        """
        own = self.ctc_tokenizer
        return own.encode(text, add_special_tokens=False).ids if own else self.text_ids(text)[:-1]

    def ctc_text(self, ids: Sequence[int]) -> str:
        """Convert ids of the CTC head to text.

        Args:
            ids: Ids without blanks.

        Returns:
            The text without special tokens and without spaces at its ends.
        """
        return self.ctc_tokenizer.decode(list(ids)).strip() if self.ctc_tokenizer else self.text(ids)

    @property
    def trained_seconds(self) -> float | None:
        """Length of the longest clip of the training in seconds, or None if generation_config.json does not say."""
        return getattr(self.hf.generation_config, "trained_seconds", None)

    def set_generation(self, max_new_tokens: int, trained_seconds: float | None = None) -> None:
        """Make `generate` of transformers decode as `arkasr decode` does, by what generation_config.json will hold.

        Args:
            max_new_tokens: Most tokens of a transcript.
            trained_seconds: Length of the longest clip of the training in seconds. None keeps what is known.
        """
        trained_seconds = trained_seconds or self.trained_seconds
        self.hf.generation_config = GenerationConfig(
            eos_token_id=self.stop_ids[0] if len(self.stop_ids) == 1 else self.stop_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            suppress_tokens=self.suppressed_ids,
            **({} if trained_seconds is None else {"trained_seconds": trained_seconds}),
        )

    def save(self, folder: Path, state_dict: dict[str, Tensor] | None = None, **options: Any) -> None:
        """Write a Hugging Face folder: weights as safetensors with their digests, configuration, tokenizer, processor.

        generation_config.json sets greedy decoding (see `set_generation`).

        The weight files get the permissions of config.json. safetensors would make them readable for their owner only.

        Args:
            folder: The folder.
            state_dict: Names and tensors of the Hugging Face model, for example gathered from shards. Default: its own.
            **options: Options of the model's `save_pretrained`. `save_original_format` defaults to False, which writes
                the native layout.
        """
        self.set_generation(self.hf.generation_config.max_new_tokens or DecodeConfig.max_new_tokens)
        self.hf.save_pretrained(folder, state_dict=state_dict, **{"save_original_format": False, **options})
        self.tokenizer.save_pretrained(folder)
        self._save_processor(Path(folder))
        for file in Path(folder).glob("*.safetensors"):
            copymode(Path(folder) / "config.json", file)
        if options.get("is_main_process", True):
            write_digests(Path(folder))

    def _save_processor(self, folder: Path) -> None:
        """Write what a model needs beside weights, configuration and tokenizer. `save` calls it before the digests."""
