"""The class and the prompts of each model type."""

from __future__ import annotations

from arkasr.model.build import prompt_examples
from arkasr.model.speech_lm.arkasr import ArkSpeechLM
from arkasr.model.speech_lm.qwen3_asr import QwenSpeechLM


def test_prompt_text_matches_the_published_prompts(ark, qwen):
    assert "".join(ark.prompt_text("Chinese")) == (
        "<|user|><|begin_of_audio|><|end_of_audio|>Please transcribe this audio.<|assistant|>"
    )
    assert "".join(qwen.prompt_text("Chinese")) == (
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|audio_start|><|audio_end|><|im_end|>\n"
        "<|im_start|>assistant\nlanguage Chinese<asr_text>"
    )
    for kind in ("arkasr", "qwen3_asr"):
        assert all(isinstance(text, str) and text for text in prompt_examples(kind))


def test_wrap_chooses_the_class_by_model_type(ark, qwen):
    assert type(ark) is ArkSpeechLM and type(qwen) is QwenSpeechLM
    assert (ark.num_mel, qwen.num_mel) == (16, 16)
