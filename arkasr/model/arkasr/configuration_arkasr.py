"""Configuration of the student: a GLM-ASR-style or Whisper encoder, an MLP adapter and a Qwen2 decoder."""

from __future__ import annotations

from copy import deepcopy
from os import PathLike
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, GlmAsrEncoderConfig, PreTrainedConfig, Qwen2Config

from arkasr.errors import UserError
from arkasr.model.arkasr.prompt import INSTRUCTION
from arkasr.model.arkasr.published_config import flat_from_nested, nested_from_flat
from arkasr.model.size_limits import check_config

ROTARY, LEARNED = "rotary", "learned"


class ArkasrEncoderConfig(GlmAsrEncoderConfig):
    """Configuration of the audio encoder: the keys of GLM-ASR's encoder, and the kind of its positions.

    Attributes:
        positions: "rotary": RoPE, as in the published model. "learned": a stored table with one row per encoder state,
            as in Whisper, and no RoPE. The table has `max_position_embeddings` rows (1500, which is 30 s in Whisper),
            and longer audio is refused.
    """

    positions: str = ROTARY

    def __post_init__(self, **kwargs):
        if self.positions not in (ROTARY, LEARNED):
            raise UserError(
                f"audio_config.positions must be {ROTARY!r} or {LEARNED!r}, got {self.positions!r}; correct it in "
                "config.json or model.sizes.audio"
            )
        super().__post_init__(**kwargs)


class ArkasrConfig(PreTrainedConfig):
    """Configuration of Ark-ASR (arXiv 2605.28139, section 3.1).

    `from_pretrained` and `from_dict` read the native nested form and the published flat form (see `published_config`).
    The published form has no `mask_padding`. It is then True, which gives the result of the authors' code for a single
    clip. Code that a config.json names (`auto_map`) is neither run nor kept.

    Attributes:
        audio_config: ArkasrEncoderConfig of the encoder. The constructor also takes a dictionary.
        text_config: Configuration of the decoder. The constructor also takes a dictionary.
        audio_token_id: Id of `<|audio|>`, which the prompt holds once per audio token.
        merge_factor: Encoder frames per audio token. 4 gives 12.5 audio tokens per second.
        mask_padding: True: padding is masked in the encoder; outputs do not depend on batch composition. False is the
            behaviour of the authors' code: clips are padded with silence to the longest of their batch, and the
            encoder attends to this silence. Set it in config.json or on the configuration of a loaded model.
        projector_hidden_act: Activation of the adapter.
        tie_word_embeddings: Whether the output head shares the weight of the embeddings.
        instruction: Text of the prompt between the audio and the transcript.
    """

    model_type = "arkasr"
    sub_configs = {"audio_config": ArkasrEncoderConfig, "text_config": Qwen2Config}

    if TYPE_CHECKING:  # what they are after __post_init__
        audio_config: Any = None
        text_config: Any = None
    else:
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
            raise UserError(
                "whisper_config: ArkasrConfig(...) takes the native form only; read a published configuration with "
                "from_pretrained or from_dict"
            )
        if not isinstance(self.audio_config, PreTrainedConfig):
            self.audio_config = ArkasrEncoderConfig(**(self.audio_config or {}))
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = Qwen2Config(**(self.text_config or {}))
        super().__post_init__(**kwargs)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the options that transformers lists are in kwargs
        cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any
    ) -> ArkasrConfig:
        """Read a config.json in either form.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            **kwargs: Options of transformers, and attributes to set.

        Returns:
            The configuration.

        Raises:
            UserError: See `from_dict`. The message names the folder.
        """
        kwargs.pop("trust_remote_code", None)
        kwargs["_place"] = str(pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, trust_remote_code=False, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> ArkasrConfig:
        """Build a configuration from a dictionary in either form.

        Args:
            config_dict: Content of a config.json.
            **kwargs: Options of transformers, and attributes to set.

        Returns:
            The configuration.

        Raises:
            UserError: The flat form describes another architecture, or has no encoder. Or a size is out of bounds.
        """
        place = kwargs.pop("_place", None) or kwargs.get("name_or_path") or "config.json"
        if "whisper_config" in config_dict:
            config_dict = nested_from_flat(deepcopy(config_dict), place)
        elif "hidden_size" in config_dict:
            raise UserError(
                f"{place}: config.json has the decoder's keys but no whisper_config with the encoder's keys; copy "
                "it again"
            )
        check_config(config_dict, place)
        known = {key: value for key, value in config_dict.items() if key != "auto_map"}
        return super().from_dict(known, **kwargs)

    def to_published_dict(self) -> dict[str, Any]:
        """Return the published flat form.

        Returns:
            Content of a config.json.

        Raises:
            UserError: The flat form cannot represent this configuration.
        """
        return flat_from_nested(self)


AutoConfig.register("arkasr", ArkasrConfig)
