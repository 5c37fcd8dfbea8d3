"""Waveforms and conversations to model inputs, in transformers' manner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from arkasr.errors import UserError
from arkasr.model import log_mel
from arkasr.model.arkasr import prompt
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig
from arkasr.model.arkasr.feature_extraction_arkasr import ArkasrFeatureExtractor, Audio, as_waveform, as_waveforms
from arkasr.model.arkasr.modeling_arkasr import num_audio_tokens


class ArkasrProcessor(ProcessorMixin):
    """Feature extractor and tokenizer around the published prompt (see `prompt`).

    audio_token: must be the prompt's; merge_factor: encoder frames of one audio token; instruction: the prompt's text
    where a conversation gives none. Batches are padded on the left, whatever the tokenizer's own side. Raises
    UserError where the tokenizer lacks a token of the prompt.
    """

    def __init__(
        self,
        feature_extractor: ArkasrFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        audio_token: str = prompt.AUDIO,
        merge_factor: int = 4,
        instruction: str = prompt.INSTRUCTION,
    ):
        prompt.require_tokens(tokenizer, {*prompt.TOKENS, audio_token})
        if audio_token != prompt.AUDIO:
            raise UserError(f"audio_token {audio_token!r}: Ark-ASR's prompt holds {prompt.AUDIO!r}")
        self.audio_token, self.audio_token_id = audio_token, tokenizer.convert_tokens_to_ids(audio_token)
        self.merge_factor, self.instruction = merge_factor, instruction
        super().__init__(feature_extractor, tokenizer, chat_template=prompt.CHAT_TEMPLATE)

    @classmethod
    def from_config(cls, config: ArkasrConfig, tokenizer: PreTrainedTokenizerBase) -> ArkasrProcessor:
        """Make the processor of a model."""
        extractor = ArkasrFeatureExtractor(config.audio_config.num_mel_bins, mask_padding=config.mask_padding)
        return cls(extractor, tokenizer, merge_factor=config.merge_factor, instruction=config.instruction)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> ArkasrProcessor:
        """Read a folder or Hub repository, ours or the published one; no code it names is run.

        What processor_config.json does not say comes from config.json. A chat template in the folder is not read.
        kwargs: where and how to look on the Hub (revision, token, cache_dir and so on).
        """
        path = pretrained_model_name_or_path
        hub = {key: value for key, value in kwargs.items() if key not in ("trust_remote_code", "_from_auto")}
        alone = Path(path).is_dir() and not (Path(path) / "config.json").is_file()
        config = ArkasrConfig() if alone else ArkasrConfig.from_pretrained(path, **hub)
        settings = {"merge_factor": config.merge_factor, "instruction": config.instruction}
        written, _ = cls.get_processor_dict(path, **hub)
        settings |= {key: written[key] for key in ("audio_token", *settings) if key in written}
        extractor = ArkasrFeatureExtractor.from_pretrained(path, **hub)
        if not alone:  # what the model attends to is the model's to say
            extractor.mask_padding = config.mask_padding
        return cls(extractor, AutoTokenizer.from_pretrained(path, **hub), **settings)

    def __call__(
        self,
        audio: Audio,
        text: str | Sequence[str] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Return the model's inputs for B clips: prompts, or prompts with transcripts.

        audio, sampling_rate: as the feature extractor's. text: B transcripts, each written after its prompt with the
        stop token; None: prompts to generate from. input_ids and attention_mask are int64 [B, S], with the audio
        token as often as the model makes audio tokens of the clip; input_features and input_features_mask as the
        feature extractor's. `model.generate(**inputs)` transcribes; cast with `inputs.to(device, dtype)`.
        """
        waveforms = as_waveforms(audio)
        before, after = prompt.prompt_parts(self.instruction)
        whole = before + self.audio_token + after
        texts = [text] if isinstance(text, str) else text
        if texts is not None and len(texts) != len(waveforms):
            raise UserError(f"{len(texts)} transcripts for {len(waveforms)} clips: give one for each, or none at all")
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
        """Put each clip's audio tokens where its prompt names them once."""
        for text in prompts:
            if text.count(self.audio_token) != 1:
                raise UserError(f"{text.count(self.audio_token)} x {self.audio_token} in {text!r}: one clip a prompt")
        heard = self.feature_extractor(waveforms, sampling_rate, names=names)
        counts = num_audio_tokens(heard["input_features_mask"].sum(-1), self.merge_factor).tolist()
        expanded = [text.replace(self.audio_token, self.audio_token * n) for text, n in zip(prompts, counts)]
        ids = self.tokenizer(expanded, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
        made = {name: ids[name] for name in ("input_ids", "attention_mask")}
        return BatchFeature(made | heard, tensor_type=return_tensors)

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]] | list[list[dict[str, Any]]],
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
        return_tensors: str = "pt",
        sampling_rate: int | None = None,
    ) -> BatchFeature | Tensor | str | list[str]:
        """Return the model's inputs for a conversation, or for a list of them.

        A conversation is [{"role": "user", "content": [{"type": "audio", "path": file}, {"type": "text", "text":
        instruction}]}], with "audio": waveform in place of the path if so wished, and holds one clip. Files are
        resampled to 16 kHz; sampling_rate is that of waveforms. tokenize=False: the prompts as text, the audio token
        once in each; return_dict=False: input_ids alone.
        """
        one = len(conversation) > 0 and isinstance(conversation[0], dict)
        batch = [conversation] if one else conversation
        sources = [_audio_of(each) for each in batch]
        if not sources:
            raise UserError("no clips: give a conversation or a list of them")
        prompts = super().apply_chat_template(batch, add_generation_prompt=add_generation_prompt)
        if not tokenize:
            return prompts[0] if one else prompts
        names = [str(s) if isinstance(s, str | Path) else f"clip {i} of {len(sources)}" for i, s in enumerate(sources)]
        waveforms = [log_mel.read_audio(s) if isinstance(s, str | Path) else as_waveform(s) for s in sources]
        inputs = self._inputs(prompts, waveforms, names, sampling_rate, return_tensors)
        return inputs if return_dict else inputs["input_ids"]

    def apply_transcription_request(
        self, audio: str | Path | Audio, sampling_rate: int | None = None, return_tensors: str = "pt"
    ) -> BatchFeature:
        """Return the model's inputs for files or waveforms (one or a list), with the model's own instruction."""
        sources = [audio] if isinstance(audio, str | Path) else audio
        if not (isinstance(sources, list | tuple) and any(isinstance(source, str | Path) for source in sources)):
            sources = as_waveforms(sources)
        text = {"type": "text", "text": self.instruction}
        said = [[{"role": "user", "content": [{"type": "audio", "audio": source}, text]}] for source in sources]
        return self.apply_chat_template(said, True, return_tensors=return_tensors, sampling_rate=sampling_rate)


def _audio_of(conversation: Sequence[dict[str, Any]]) -> Any:
    """Return a conversation's clip, a file or a waveform. Raises UserError where it does not fit the prompt."""
    for message in conversation:
        if message.get("role") not in ("user", "assistant"):
            raise UserError(f"role {message.get('role')!r}: Ark-ASR's prompt knows user and assistant")
    contents = [message["content"] for message in conversation if not isinstance(message["content"], str)]
    found = [part for content in contents for part in content if part.get("type") == "audio"]
    if len(found) != 1:
        raise UserError(f"{len(found)} audio parts in a conversation: give one, and a conversation for each clip")
    source = found[0].get("audio", found[0].get("path"))
    if source is None:
        raise UserError(f"an audio part has {sorted(found[0])}: give `path`, a file, or `audio`, a waveform")
    return source


AutoProcessor.register(ArkasrConfig, ArkasrProcessor)
