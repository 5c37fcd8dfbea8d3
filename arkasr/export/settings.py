"""The generation settings in an exported folder: those of `arkasr decode`."""

from __future__ import annotations

from transformers import GenerationConfig

from arkasr.model.speech_lm.auto import SpeechLM


def generation_settings(lm: SpeechLM, max_new_tokens: int) -> GenerationConfig:
    """Return the settings of greedy decoding, for generation_config.json.

    Args:
        lm: The model.
        max_new_tokens: Maximum number of tokens per transcript.

    Returns:
        The settings, with the stop ids and the ids that are never generated.
    """
    return GenerationConfig(
        eos_token_id=lm.stop_ids,
        pad_token_id=lm.tokenizer.pad_token_id,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        suppress_tokens=lm.suppressed_ids,
    )
