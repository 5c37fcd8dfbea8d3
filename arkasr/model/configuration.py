"""Configuration of the student: a GLM-ASR-style encoder, an MLP adapter and a Qwen2 decoder."""

from __future__ import annotations

from transformers import AutoConfig, GlmAsrEncoderConfig, PreTrainedConfig, Qwen2Config


class ArkasrConfig(PreTrainedConfig):
    """Ark-ASR (arXiv 2605.28139, section 3.1).

    merge_factor: encoder frames that become one audio token (4: 12.5 tokens a second). mask_padding: whether frames
    past a clip's end are hidden from attention, which makes a clip independent of its batch; False is the authors'
    behaviour. instruction: what is written between the audio and the transcript.
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
    instruction: str = "Please transcribe this audio."

    def __post_init__(self, **kwargs):
        if not isinstance(self.audio_config, PreTrainedConfig):
            self.audio_config = GlmAsrEncoderConfig(**(self.audio_config or {}))
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = Qwen2Config(**(self.text_config or {}))
        super().__post_init__(**kwargs)


AutoConfig.register("arkasr", ArkasrConfig)
