"""Ark-ASR, and GLM-ASR as control, in transformers' own tests of models and configurations.

Run them as docs/transformers.md says. Without the source distribution of transformers they are skipped.
"""

from __future__ import annotations

import functools
import unittest
from unittest.mock import patch

import pytest
import torch
from transformers import GlmAsrConfig, GlmAsrForConditionalGeneration, GlmAsrModel
from transformers_source import missing, mixins, skipped

from arkasr import ArkasrConfig, ArkasrForConditionalGeneration
from arkasr.model.arkasr.modeling_arkasr import ArkasrModel

WHY_NOT = missing()
AUDIO_TOKENS, STATES_PER_TOKEN = 8, 4
ENCODER = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2}
ENCODER |= {"num_mel_bins": 16, "max_position_embeddings": AUDIO_TOKENS * STATES_PER_TOKEN}
DECODER = {"hidden_size": 16, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
DECODER |= {"num_hidden_layers": 2, "vocab_size": 99, "pad_token_id": 1, "max_position_embeddings": 64}
CONFIGS = {
    ArkasrConfig: {"audio_config": ENCODER, "text_config": DECODER | {"model_type": "qwen2"}},
    GlmAsrConfig: {"audio_config": ENCODER, "text_config": DECODER | {"model_type": "llama"}},
}
PROMPTS_HOLD_AUDIO = "input_features replace the embeddings of audio tokens, so inputs_embeds alone is another input"
EXCEPTIONS = {  # tests that do not apply, and why
    ArkasrForConditionalGeneration: skipped(
        test_inputs_embeds_matches_input_ids=PROMPTS_HOLD_AUDIO,
        test_model_weights_reload_no_missing_tied_weights="Ark-ASR refuses files that lack weights",
    ),
    GlmAsrForConditionalGeneration: skipped(
        test_inputs_embeds_matches_input_ids=PROMPTS_HOLD_AUDIO,
        test_sdpa_can_compile_dynamic="transformers skips it for GLM-ASR",
        test_sdpa_can_dispatch_on_flash="transformers skips it for GLM-ASR",
        test_model_base_model_prefix="transformers skips it for GLM-ASR",
    ),
}


class Inputs:
    """The sizes and inputs that the mixins ask for: three prompts of audio tokens and text, with their features."""

    batch_size, seq_length, is_training = 3, 24, True

    def __init__(self, config_class: type):
        self.config_class, self.parts = config_class, CONFIGS[config_class]
        self.audio_config, self.text_config = self.parts["audio_config"], self.parts["text_config"]
        self.encoder_seq_length = self.seq_length
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
            setattr(self, name, self.text_config[name])

    def get_config(self):
        return self.config_class(**self.parts, audio_token_id=0)

    def prepare_config_and_inputs_for_common(self):
        shared, frames = mixins(), 2 * AUDIO_TOKENS * STATES_PER_TOKEN
        config = self.get_config()
        ids = shared.ids_tensor([self.batch_size, self.seq_length], self.vocab_size - 2) + 2
        ids[:, 1 : 1 + AUDIO_TOKENS] = config.audio_token_id
        mask = torch.ones_like(ids)
        mask[:, 0] = 0
        features = shared.floats_tensor([self.batch_size, ENCODER["num_mel_bins"], frames])
        frame_mask = torch.ones(self.batch_size, frames, dtype=torch.long)
        inputs = {"input_ids": ids, "attention_mask": mask}
        return config, inputs | {"input_features": features, "input_features_mask": frame_mask}


def suite(model_class: type, base_class: type, config_class: type) -> type:
    """Return a test class with transformers' mixins, for a model with and without its output head."""
    shared = mixins()

    class Suite(shared.ModelTesterMixin, shared.GenerationTesterMixin, unittest.TestCase):
        all_model_classes, _is_composite = (base_class, model_class), True

        def setUp(self):
            self.model_tester = Inputs(config_class)
            self.config_tester = shared.ConfigTester(self, config_class=config_class, has_text_modality=False)
            known = shared.modeling.MODEL_MAPPING_NAMES  # the models without head, which have no loss
            named = patch.object(shared.modeling, "MODEL_MAPPING_NAMES", {**known, "arkasr": ArkasrModel.__name__})
            named.start()
            self.addCleanup(named.stop)

        def test_config(self):
            self.config_tester.run_common_tests()

        def _prepare_for_class(self, inputs, model_class, return_labels=False):
            """Add labels, which the mixin adds for transformers' own classes only."""
            inputs = super()._prepare_for_class(inputs, model_class, return_labels)
            labels = {"labels": torch.zeros_like(inputs["input_ids"])}
            return labels | inputs if return_labels and model_class.can_generate() else inputs

    return type(f"{model_class.__name__}Test", (Suite,), EXCEPTIONS[model_class])


if WHY_NOT:

    @pytest.mark.skip(reason=WHY_NOT)
    def test_transformers_own_model_tests_pass():
        pass
else:

    class TestArkasr(suite(ArkasrForConditionalGeneration, ArkasrModel, ArkasrConfig)):
        def test_reverse_loading_mapping(self):
            """Save in the published layout, which has other names. Ark-ASR does so on request only."""
            method = functools.partialmethod(ArkasrForConditionalGeneration.save_pretrained, save_original_format=True)
            with patch.object(ArkasrForConditionalGeneration, "save_pretrained", method):
                super().test_reverse_loading_mapping(skip_base_model=True)

    TestControl = suite(GlmAsrForConditionalGeneration, GlmAsrModel, GlmAsrConfig)
