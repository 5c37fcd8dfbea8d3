"""One OPD step of tiny models: a trainable student, a frozen teacher, a mapper and a loss."""

from __future__ import annotations

import copy
from functools import lru_cache

import torch
from tiny import eager_to_stop, student, teacher, teacher_tokenizer

from arkasr.builtin.losses import UnionTopkKl, UnionTopkKlOptions
from arkasr.builtin.mappers.common import NoMapperOptions
from arkasr.builtin.mappers.identity import Identity
from arkasr.builtin.mappers.shared_strings import SharedStrings
from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.distill.step import Opd
from arkasr.distributions.views import DenseView
from arkasr.model.tokenization import ARK_TOKENS

SIZES = [16000, 4000, 9000, 24000, 160, 12345]

K = 6


class InMemory:
    """A teacher for a SpeechLM in memory. The built-in teacher loads one from a folder."""

    def __init__(self, lm):
        self.lm, self.tokenizer, self.stop_ids = lm.requires_grad_(False), lm.tokenizer, lm.stop_ids

    def transcribe(self, waveforms, languages):
        """Return the same text for all clips, and an empty text for short ones."""
        return ["she sells" if len(w) > 5000 else "" for w in waveforms]

    def score(self, waveforms, languages, token_ids):
        with torch.no_grad():
            prompts = self.lm.embed_prompts(self.lm.encode_audio(waveforms), languages)
            return DenseView(self.lm.transcript_states(prompts, token_ids) @ self.lm.head.T)


@lru_cache
def frozen_teacher():
    return InMemory(eager_to_stop(teacher(10), 2.0))


def trainable(seed=50):
    return eager_to_stop(student(seed), 2.0)


def opd(lm, its_teacher=None, mapper=SharedStrings, temperature=1.0, k=K, mix=None, **rollout):
    its_teacher = its_teacher or frozen_teacher()
    token_mapper = mapper(NoMapperOptions(), student=lm, teacher=its_teacher)
    loss = UnionTopkKl(UnionTopkKlOptions(temperature))
    config = RolloutConfig(**{"max_new_tokens": 9} | rollout)
    return Opd(its_teacher, token_mapper, loss, config, DistillConfig(top_k=k, **({"mix": mix} if mix else {})))


def with_tokens_of_the_teacher():
    """Return a trainable student with the tokenizer of the teacher."""
    tokenizer = copy.deepcopy(teacher_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ARK_TOKENS, "eos_token": "<|im_end|>"})
    return eager_to_stop(student(10, tokenizer), 2.0)


# mapper -> (function that makes a student for it, class of the mapper)
CASES = {"identity": (with_tokens_of_the_teacher, Identity), "shared_strings": (trainable, SharedStrings)}
