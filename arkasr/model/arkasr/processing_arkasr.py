"""Convert waveforms and conversations to model inputs, as a transformers processor."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from arkasr.errors import UserError
from arkasr.model import log_mel
from arkasr.model.arkasr import prompt
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig
from arkasr.model.arkasr.feature_extraction_arkasr import ArkasrFeatureExtractor, Audio, as_waveform, as_waveforms
from arkasr.model.arkasr.modeling_arkasr import num_audio_tokens
from arkasr.model.reading import check_json_files, load_tokenizer, reading

Conversation = list[dict[str, Any]]


class ArkasrProcessor(ProcessorMixin):
    """Feature extractor, tokenizer and the published prompt (see `prompt`).

    Batches are padded on the left, independent of the tokenizer's padding side.

    Args:
        feature_extractor: Computes the log-mel features.
        tokenizer: Must have all special tokens of the prompt.
        audio_token: Must be "<|audio|>".
        merge_factor: Encoder frames per audio token.
        instruction: Text of the prompt if a conversation has none.

    Raises:
        UserError: The tokenizer lacks special tokens of the prompt, or another argument is not one of Ark-ASR.
    """

    def __init__(
        self,
        feature_extractor: ArkasrFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        audio_token: str = prompt.AUDIO,
        merge_factor: int = 4,
        instruction: str = prompt.INSTRUCTION,
    ):
        if audio_token != prompt.AUDIO:
            raise UserError(
                f"{tokenizer.name_or_path}: audio_token must be {prompt.AUDIO!r}, as in Ark-ASR's prompt, got "
                f"{audio_token!r}; export the model again"
            )
        if type(merge_factor) is not int or merge_factor < 1 or not isinstance(instruction, str):
            raise UserError(
                f"{tokenizer.name_or_path}: merge_factor must be a whole number from 1 and instruction a text, got "
                f"{merge_factor!r} and {instruction!r}; export the model again"
            )
        prompt.require_tokens(tokenizer, prompt.TOKENS)
        self.audio_token, self.audio_token_id = audio_token, tokenizer.convert_tokens_to_ids(audio_token)
        self.merge_factor, self.instruction = merge_factor, instruction
        super().__init__(feature_extractor, tokenizer, chat_template=prompt.CHAT_TEMPLATE)

    @classmethod
    def from_config(cls, config: ArkasrConfig, tokenizer: PreTrainedTokenizerBase) -> ArkasrProcessor:
        """Build the processor of a model.

        Args:
            config: The model's configuration.
            tokenizer: The model's tokenizer.

        Returns:
            The processor.
        """
        extractor = ArkasrFeatureExtractor(config.audio_config.num_mel_bins, mask_padding=config.mask_padding)
        return cls(extractor, tokenizer, merge_factor=config.merge_factor, instruction=config.instruction)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the options that transformers lists are in kwargs
        cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any
    ) -> ArkasrProcessor:
        """Load the processor of a model in the native or the published layout. Code that the folder names never runs.

        Settings that processor_config.json lacks come from config.json. A chat template in the folder is ignored.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            **kwargs: Options for the Hub (revision, token, cache_dir and others).

        Returns:
            The processor.

        Raises:
            UserError: A file is missing or damaged, or the tokenizer needs its own code.
        """
        path = pretrained_model_name_or_path
        hub = {key: value for key, value in kwargs.items() if key not in ("trust_remote_code", "_from_auto")}
        check_json_files(str(path))
        alone = Path(path).is_dir() and not (Path(path) / "config.json").is_file()
        with reading(str(path)):
            config = ArkasrConfig() if alone else ArkasrConfig.from_pretrained(path, trust_remote_code=False, **hub)
            settings: dict[str, Any] = {"merge_factor": config.merge_factor, "instruction": config.instruction}
            written, _ = cls.get_processor_dict(path, **hub)
            settings |= {key: written[key] for key in ("audio_token", *settings) if key in written}
            extractor = ArkasrFeatureExtractor.from_pretrained(path, trust_remote_code=False, **hub)
        if not alone:  # the model's configuration decides whether padding is masked
            extractor.mask_padding = config.mask_padding
            extractor.require_mels(config.audio_config.num_mel_bins, str(path))
        return cls(extractor, load_tokenizer(str(path), **hub), **settings)

    def __call__(
        self,
        audio: Audio,
        text: str | Sequence[str] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Return the model's inputs for B clips.

        `model.generate(**inputs)` transcribes them. Use `inputs.to(device, dtype)` to move and cast.

        Args:
            audio: See `ArkasrFeatureExtractor.__call__`.
            text: B transcripts, each appended to its prompt with the stop token. None returns the prompts only.
            sampling_rate: See `ArkasrFeatureExtractor.__call__`.
            return_tensors: "pt" or "np".

        Returns:
            `input_ids` and `attention_mask` [B, S], int64, with `<|audio|>` once per audio token, and
            `input_features` [B, M, T], float32, and `input_features_mask` [B, T], int64.

        Raises:
            UserError: A waveform or the rate is invalid, or the number of transcripts differs from B.
        """
        waveforms = as_waveforms(audio)
        before, after = prompt.prompt_parts(self.instruction)
        whole = before + self.audio_token + after
        texts = [text] if isinstance(text, str) else text
        if texts is not None and len(texts) != len(waveforms):
            raise UserError(f"{len(texts)} transcripts for {len(waveforms)} clips; give one per clip or none")
        prompts = [whole if texts is None else whole + texts[i] + prompt.STOP for i in range(len(waveforms))]
        return self._inputs(prompts, waveforms, None, sampling_rate, return_tensors)

    def _inputs(
        self,
        prompts: list[str],
        waveforms: list[Tensor],
        names: list[str] | None,
        sampling_rate: int | None,
        return_tensors: str,
    ) -> BatchFeature:
        """Repeat `<|audio|>` in each prompt once per audio token of its clip, and tokenise."""
        for text in prompts:
            if text.count(self.audio_token) != 1:
                raise UserError(
                    f"{text.count(self.audio_token)} x {self.audio_token} in the prompt {text!r}; give one clip per "
                    "prompt"
                )
        features = self.feature_extractor(waveforms, sampling_rate, names=names)
        counts = num_audio_tokens(features["input_features_mask"].sum(-1), self.merge_factor).tolist()
        expanded = [text.replace(self.audio_token, self.audio_token * n) for text, n in zip(prompts, counts)]
        ids = self.tokenizer(expanded, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
        tokens = {name: ids[name] for name in ("input_ids", "attention_mask")}
        return BatchFeature(tokens | features, tensor_type=return_tensors)

    def apply_chat_template(  # type: ignore[override]  # transformers' other options do not apply to this prompt
        self,
        conversation: Conversation | list[Conversation],
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
        return_tensors: str = "pt",
        sampling_rate: int | None = None,
    ) -> BatchFeature | Tensor | str | list[str]:
        """Return the model's inputs for one conversation or a list of conversations.

        Example of a conversation::

            [{"role": "user", "content": [{"type": "audio", "path": "clip.wav"},
                                          {"type": "text", "text": "Please transcribe this audio."}]}]

        Args:
            conversation: One conversation or B of them, each with one clip: `path` names a file, which is resampled to
                16 kHz, and `audio` holds a waveform.
            add_generation_prompt: Whether `<|assistant|>` follows, for generation.
            tokenize: False returns the prompts as text, with `<|audio|>` once.
            return_dict: False returns `input_ids` only.
            return_tensors: "pt" or "np".
            sampling_rate: Rate of the waveforms in Hz, if known.

        Returns:
            The inputs as in `__call__`, or `input_ids`, or the text of the prompts (a single string for one
            conversation).

        Raises:
            UserError: A conversation does not have exactly one clip, or has a role other than user and assistant. Or
                the audio is invalid.
        """
        is_single = len(conversation) > 0 and isinstance(conversation[0], dict)
        batch: list[Any] = [conversation] if is_single else conversation
        sources = [_audio_of(each) for each in batch]
        if not sources:
            raise UserError("no clips; give a conversation or a list of conversations")
        prompts: Any = super().apply_chat_template(batch, add_generation_prompt=add_generation_prompt)
        if not tokenize:
            return prompts[0] if is_single else prompts
        names = [str(s) if isinstance(s, str | Path) else f"clip {i} of {len(sources)}" for i, s in enumerate(sources)]
        waveforms = [log_mel.read_audio(s) if isinstance(s, str | Path) else as_waveform(s) for s in sources]
        inputs = self._inputs(prompts, waveforms, names, sampling_rate, return_tensors)
        return inputs if return_dict else inputs["input_ids"]

    def apply_transcription_request(
        self, audio: str | Path | Audio, sampling_rate: int | None = None, return_tensors: str = "pt"
    ) -> BatchFeature:
        """Return the model's inputs for files or waveforms, with the model's own instruction.

        Args:
            audio: One file or waveform, or a list of B of them.
            sampling_rate: Rate of the waveforms in Hz, if known. Files are resampled to 16 kHz.
            return_tensors: "pt" or "np".

        Returns:
            See `__call__`.

        Raises:
            UserError: See `apply_chat_template`.
        """
        sources: Any = [audio] if isinstance(audio, str | Path) else audio
        if not (isinstance(sources, list | tuple) and any(isinstance(source, str | Path) for source in sources)):
            sources = as_waveforms(sources)
        text = {"type": "text", "text": self.instruction}
        turns = [[{"role": "user", "content": [{"type": "audio", "audio": source}, text]}] for source in sources]
        inputs: Any = self.apply_chat_template(turns, True, return_tensors=return_tensors, sampling_rate=sampling_rate)
        return inputs


def _audio_of(conversation: Conversation) -> Any:
    """Return the clip of a conversation, a file or a waveform."""
    for message in conversation:
        if message.get("role") not in ("user", "assistant"):
            raise UserError(f"role must be user or assistant in Ark-ASR's prompt, got {message.get('role')!r}")
    contents = [message["content"] for message in conversation if not isinstance(message["content"], str)]
    found = [part for content in contents for part in content if part.get("type") == "audio"]
    if len(found) != 1:
        raise UserError(f"{len(found)} audio parts in one conversation; give one clip per conversation")
    source = found[0].get("audio", found[0].get("path"))
    if source is None:
        raise UserError(f"audio part with the keys {sorted(found[0])}; give `path` (a file) or `audio` (a waveform)")
    return source


AutoProcessor.register(ArkasrConfig, ArkasrProcessor)
