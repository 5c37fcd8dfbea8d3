"""Ark-ASR's processor, and GLM-ASR's as control, in transformers' own tests of processors.

Run them as docs/transformers.md says. Without the source distribution of transformers they are skipped.
"""

from __future__ import annotations

import copy
import functools
import unittest
from unittest.mock import patch

import pytest
from tiny import teacher_tokenizer
from tiny_teachers import GLM_TOKENS
from transformers import GlmAsrProcessor, WhisperFeatureExtractor
from transformers_source import missing, mixins, skipped

from arkasr import ArkasrFeatureExtractor, ArkasrProcessor
from arkasr.model.tokenization import ARK_TOKENS

WHY_NOT = missing()
GLM_TEMPLATE = (
    "{%- for message in messages -%}<|{{ message.role }}|>"
    "{%- for part in message.content -%}"
    "{{- '<|begin_of_audio|><|pad|><|end_of_audio|>' if part.type == 'audio' else part.text -}}"
    "{%- endfor -%}{%- endfor -%}{{- '<|assistant|>' if add_generation_prompt -}}"
)
EXCEPTIONS = {
    ArkasrProcessor: skipped(),
    GlmAsrProcessor: skipped(
        **{
            f"test_apply_chat_template_audio_{number}": "the control returns torch tensors only"
            for number in ("0", "2")
        }
    ),
}


def tokenizer_with(tokens: list[str]):
    """Return byte-level BPE with special tokens."""
    tokenizer = copy.deepcopy(teacher_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    return tokenizer


def suite(processor_class: type, tokens: list[str], extractor: object, **settings: object) -> type:
    """Return a test class with transformers' mixin."""
    body = {
        "processor_class": processor_class,
        "_setup_tokenizer": classmethod(lambda cls: tokenizer_with(tokens)),
        "_setup_feature_extractor": classmethod(lambda cls: copy.deepcopy(extractor)),
        "prepare_processor_dict": staticmethod(lambda: settings),
    }
    bases = (mixins().ProcessorTesterMixin, unittest.TestCase)
    return type(f"{processor_class.__name__}Test", bases, body | EXCEPTIONS[processor_class])


if WHY_NOT:

    @pytest.mark.skip(reason=WHY_NOT)
    def test_transformers_own_processor_tests_pass():
        pass
else:
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    TestControl = suite(GlmAsrProcessor, GLM_TOKENS, extractor, chat_template=GLM_TEMPLATE)

    class TestArkasr(suite(ArkasrProcessor, ARK_TOKENS, ArkasrFeatureExtractor(16))):
        def setUp(self):
            """Give `apply_chat_template` transformers' default of `return_dict`.

            Ark-ASR's is True, because the published model card needs it.
            """
            method = functools.partialmethod(ArkasrProcessor.apply_chat_template, return_dict=False)
            patched = patch.object(ArkasrProcessor, "apply_chat_template", method)
            patched.start()
            self.addCleanup(patched.stop)
