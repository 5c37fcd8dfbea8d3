"""Convert waveforms and conversations to model inputs, as a transformers processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from arkasr.errors import UserError
from arkasr.model.arkasr import prompt
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig
from arkasr.model.arkasr.conversations import Clips, Conversation, check_conversations, clips_of
from arkasr.model.arkasr.feature_extraction_arkasr import ArkasrFeatureExtractor, Audio, as_waveforms
from arkasr.model.arkasr.modeling_arkasr import num_audio_tokens
from arkasr.model.reading import check_json_files, load_tokenizer, reading

AUDIO_OPTIONS = {"sampling_rate", "return_tensors"}  # those of transformers that these features have


class ArkasrProcessor(ProcessorMixin):
    """Feature extractor, tokenizer and the published prompt (see `prompt`).

    Batches are padded on the left, independent of the tokenizer's padding side, unless a call sets `padding_side`.
    `max_length`, `padding` and `truncation` apply to the text. Audio is never cut.

    Args:
        feature_extractor: Computes the log-mel features.
        tokenizer: Must have all special tokens of the prompt.
        audio_token: Must be "<|audio|>".
        merge_factor: Encoder frames per audio token.
        instruction: Text of the prompt if a conversation has none.

    Raises:
        UserError: The tokenizer lacks special tokens of the prompt, or another argument is not one of Ark-ASR.
    """

    text_kwargs = {"padding": True, "add_special_tokens": False, "return_tensors": "pt"}

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
            **kwargs: Options for the Hub (revision, token, cache_dir, subfolder and others), and for the tokenizer.

        Returns:
            The processor.

        Raises:
            UserError: A file is missing or damaged, or the tokenizer needs its own code.
        """
        path, options = pretrained_model_name_or_path, dict(kwargs)
        for never in ("trust_remote_code", "_from_auto"):
            options.pop(never, None)
        folder = Path(path) / options.get("subfolder", "")
        check_json_files(str(folder))
        alone = folder.is_dir() and not (folder / "config.json").is_file()
        with reading(str(path)):
            config = ArkasrConfig() if alone else ArkasrConfig.from_pretrained(path, trust_remote_code=False, **options)
            settings: dict[str, Any] = {"merge_factor": config.merge_factor, "instruction": config.instruction}
            written, _ = cls.get_processor_dict(path, **options)
            settings |= {key: written[key] for key in ("audio_token", *settings) if key in written}
            extractor = ArkasrFeatureExtractor.from_pretrained(path, trust_remote_code=False, **options)
        if not alone:  # the model's configuration decides whether padding is masked
            extractor.mask_padding = config.mask_padding
            extractor.require_mels(config.audio_config.num_mel_bins, str(path))
        return cls(extractor, load_tokenizer(str(path), **options), **settings)

    def __call__(
        self,
        audio: Audio | None = None,
        text: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Return the model's inputs for B clips.

        `model.generate(**inputs)` transcribes them. Use `inputs.to(device, dtype)` to move and cast.

        Args:
            audio: See `ArkasrFeatureExtractor.__call__`. None tokenises `text` alone.
            text: None for the prompts only, or B texts: a text with `<|audio|>` is a whole prompt, as for other
                processors of transformers. Any other text is a transcript, and is appended to the prompt with the
                stop token.
            **kwargs: Options of transformers' processors: `sampling_rate` in Hz, `return_tensors` ("pt" or "np"),
                `text_kwargs`, `audio_kwargs`, `common_kwargs`, and options of the tokenizer such as `max_length`.

        Returns:
            `input_ids` and `attention_mask` [B, S], int64, with `<|audio|>` once per audio token, and
            `input_features` [B, M, T], float32, and `input_features_mask` [B, T], int64.

        Raises:
            UserError: There is no input, a waveform or an option is invalid, or clips and texts do not match.
        """
        if audio is None and text is None:
            raise UserError("neither audio nor text; pass the clips, or a text to tokenise")
        if unknown := sorted({*(kwargs.get("audio_kwargs") or {})} - AUDIO_OPTIONS):
            raise UserError(
                f"audio_kwargs {unknown[0]}: Ark-ASR's audio is neither padded nor cut; use {', '.join(AUDIO_OPTIONS)}"
            )
        texts = [text] if isinstance(text, str) else None if text is None else list(text)
        if audio is None:
            clips = None
            if count := sum(each.count(self.audio_token) for each in texts or ()):
                raise UserError(f"{count} {self.audio_token} in the text but no clips; pass the clips as `audio`")
        else:
            clips = Clips(as_waveforms(audio), audio.names if isinstance(audio, Clips) else None)
            texts = self._prompts(len(clips), texts)
        inputs: BatchFeature = super().__call__(audio=clips, text=texts, **self._with_padding_side(kwargs))
        return inputs

    def _prompts(self, clips: int, texts: list[str] | None) -> list[str]:
        """Return one prompt with `<|audio|>` once per clip."""
        whole = self.audio_token.join(prompt.prompt_parts(self.instruction))
        found = [whole] * clips if texts is None else texts
        if len(found) != clips:
            raise UserError(
                f"{len(found)} transcripts or prompts for {clips} clips; the number of {self.audio_token} tokens in "
                "the prompts should be the same as the number of clips, so give one text per clip or none"
            )
        found = [each if self.audio_token in each else whole + each + prompt.STOP for each in found]
        for each in found:
            if (count := each.count(self.audio_token)) != 1:
                raise UserError(f"{count} x {self.audio_token} in the prompt {each!r}; give one clip per prompt")
        return found

    @staticmethod
    def _with_padding_side(kwargs: dict[str, Any]) -> dict[str, Any]:
        groups = (kwargs, kwargs.get("text_kwargs") or {}, kwargs.get("common_kwargs") or {})
        if any("padding_side" in group for group in groups):
            return kwargs
        return kwargs | {"text_kwargs": {**groups[1], "padding_side": "left"}}

    def prepare_inputs_layout(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Pass on clips and texts, which `__call__` has brought into their form. transformers calls this.

        Args:
            images: None.
            text: List of texts, or None.
            videos: None.
            audio: List of waveforms, or None.
            **kwargs: Ignored.

        Returns:
            The same four values.
        """
        return images, text, videos, audio

    def _process_audio(self, audio: Sequence[Tensor], **kwargs: Any) -> tuple[BatchFeature, list[str]]:  # type: ignore[override]
        """Compute features, and what replaces `<|audio|>` in each prompt."""
        names, rate = getattr(audio, "names", None), kwargs.get("sampling_rate")
        features = self.feature_extractor(audio, rate, names=names)
        return features, [self.replace_audio_token(features, i) for i in range(len(audio))]

    def replace_audio_token(self, audio_inputs: Mapping[str, Any], audio_idx: int, **kwargs: Any) -> str:
        """Return what replaces `<|audio|>` in the prompt of one clip. transformers calls this.

        Args:
            audio_inputs: Features and masks of the batch.
            audio_idx: Index of the clip.
            **kwargs: Ignored.

        Returns:
            `<|audio|>` once per audio token.
        """
        frames = int(audio_inputs["input_features_mask"][audio_idx].sum())
        return self.audio_token * num_audio_tokens(frames, self.merge_factor)

    def apply_chat_template(  # type: ignore[override]  # other defaults
        self,
        conversation: Conversation | Sequence[Conversation],
        chat_template: str | None = None,
        *,
        tokenize: bool = True,
        return_dict: bool = True,
        return_tensors: str = "pt",
        sampling_rate: int | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> BatchFeature | Tensor | str | list[str]:
        """Return the model's inputs for one conversation or a list of conversations.

        Example of a conversation::

            [{"role": "user", "content": [{"type": "audio", "path": "clip.wav"},
                                          {"type": "text", "text": "Please transcribe this audio."}]}]

        A system turn is written as `<|system|>` and its text, as in the published template. The published model was not
        trained with one.

        Args:
            conversation: One conversation or B of them, each with one clip: `path` or `url` names a file, which is
                resampled to 16 kHz, and `audio` holds a waveform. Or without clips, in all conversations.
            chat_template: A template to use instead of Ark-ASR's.
            tokenize: False returns the prompts as text, with `<|audio|>` once.
            return_dict: False returns `input_ids` only.
            return_tensors: "pt" or "np".
            sampling_rate: Rate of the waveforms in Hz, if known.
            processor_kwargs: Options of `__call__`.
            **kwargs: Options of transformers: `add_generation_prompt` (whether `<|assistant|>` follows, for
                generation), `continue_final_message`, `return_assistant_tokens_mask`, and variables of the template.

        Returns:
            The inputs as in `__call__`, or `input_ids`, or the text of the prompts (a single string for one
            conversation).

        Raises:
            UserError: A conversation has several clips or an unknown role. Or the audio or an option is invalid.
        """
        if len(conversation) == 0:
            raise UserError("no clips; give a conversation or a list of conversations")
        check_conversations(self._normalize_conversations(conversation)[0])
        options = dict(processor_kwargs or {})
        if sampling_rate is not None:
            options["sampling_rate"] = sampling_rate
        result: Any = super().apply_chat_template(
            conversation,  # type: ignore[arg-type]  # transformers declares lists
            chat_template,
            tokenize=tokenize,
            return_dict=return_dict,
            return_tensors=return_tensors,
            processor_kwargs=options,
            **kwargs,
        )
        return result

    def _multimodal_inputs_from_conversations(
        self, conversations: list[Any], *args: Any, **kwargs: Any
    ) -> tuple[list[Any], list[Any], Clips, dict[str, Any]]:
        return [], [], clips_of(conversations), {}

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
        inputs: Any = self.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors=return_tensors, sampling_rate=sampling_rate
        )
        return inputs


AutoProcessor.register(ArkasrConfig, ArkasrProcessor)
