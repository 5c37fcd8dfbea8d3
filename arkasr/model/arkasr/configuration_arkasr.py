"""Configuration of the student: a GLM-ASR-style encoder, an MLP adapter and a Qwen2 decoder."""

from __future__ import annotations

from copy import deepcopy
from os import PathLike
from typing import Any

from transformers import AutoConfig, GlmAsrEncoderConfig, PreTrainedConfig, Qwen2Config

from arkasr.errors import UserError
from arkasr.model.arkasr.prompt import INSTRUCTION
from arkasr.model.arkasr.published_config import flat_from_nested, nested_from_flat


class ArkasrConfig(PreTrainedConfig):
    """Ark-ASR (arXiv 2605.28139, section 3.1).

    merge_factor: encoder frames that become one audio token (4: 12.5 tokens a second). mask_padding: whether frames
    past a clip's end are hidden from attention, which makes a clip independent of its batch. False, written into
    config.json or set on a loaded model's config, is the authors' behaviour: clips are completed with silence to the
    longest of their batch, and it is heard. instruction: what is written between the audio and the transcript.

    `from_pretrained` and `from_dict` read our nested form and the published flat one (see `flat_config`), which does
    not say mask_padding: it is then True, which for a clip alone is what the authors' code computes. No code that a
    config.json names (`auto_map`) is run or kept.
    """

    model_type = "arkasr"
    sub_configs = {"audio_config": GlmAsrEncoderConfig, "text_config": Qwen2Config}

    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    audio_token_id: int = 151663
    merge_factor: int = 4
    mask_padding: bool = True
    projector_hidden_act: str = "gelu"
    tie_word_embeddings: bool = True
    instruction: str = INSTRUCTION

    def __post_init__(self, **kwargs):
        if "whisper_config" in kwargs:
            raise UserError("whisper_config: a published configuration is read by from_pretrained or from_dict")
        if not isinstance(self.audio_config, PreTrainedConfig):
            self.audio_config = GlmAsrEncoderConfig(**(self.audio_config or {}))
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = Qwen2Config(**(self.text_config or {}))
        super().__post_init__(**kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any) -> ArkasrConfig:
        """Read the config.json of a folder or of the Hub, in either form; errors name the folder."""
        kwargs.setdefault("name_or_path", str(pretrained_model_name_or_path))
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> ArkasrConfig:
        """Read either form. Raises UserError where the flat form asks for another architecture."""
        place = kwargs.get("name_or_path") or "a configuration"
        if "whisper_config" in config_dict:
            config_dict = nested_from_flat(deepcopy(config_dict), place)
        elif "hidden_size" in config_dict:
            raise UserError(f"{place}: config.json has the decoder's keys but no whisper_config, the encoder's")
        known = {key: value for key, value in config_dict.items() if key != "auto_map"}
        return super().from_dict(known, **kwargs)

    def to_published_dict(self) -> dict[str, Any]:
        """Return the published flat form. Raises UserError for what it cannot say."""
        return flat_from_nested(self)


AutoConfig.register("arkasr", ArkasrConfig)
