"""Limits of the numbers in the configuration."""

from __future__ import annotations

from dataclasses import is_dataclass
from math import inf, nan

import pytest
import torch
from tiny import student

from arkasr.config.schema import COLDEST, WARMEST, Config, RolloutConfig
from arkasr.config.validate import kinds_of
from arkasr.model.generation import generate

UNLIMITED = {"data.max_seconds", "data.max_clip_seconds", "optim.clip", "decode.max_seconds"}  # inf: no limit


def test_schema_refuses_nan_and_infinity_except_for_limits():
    found = set()
    for section, kind in kinds_of(Config).items():
        for key in (key for key, hint in kinds_of(kind).items() if hint is float) if is_dataclass(kind) else ():
            found.add(f"{section}.{key}")
            for value in (nan,) if f"{section}.{key}" in UNLIMITED else (nan, inf):
                with pytest.raises(ValueError, match=f"^{key} must be .*, got {value}$"):
                    kind(**{key: value})
    assert found > UNLIMITED and len(found) > 15
    for key in UNLIMITED:
        section, _, name = key.partition(".")
        assert getattr(kinds_of(Config)[section](**{name: inf}), name) == inf


@pytest.mark.parametrize("temperature", [0.0, COLDEST, 1.0, WARMEST])
@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_generate_draws_allowed_tokens_at_limits_of_temperature(temperature, top_p):
    config, lm = RolloutConfig(temperature=temperature, top_p=top_p), student(3)
    with torch.no_grad():
        lm.head.mul_(1e3)
        prompts = [torch.randn(5, lm.head.shape[1], generator=torch.Generator().manual_seed(0))]
        states = lm.hf.model.language_model(inputs_embeds=prompts[0][None]).last_hidden_state
    assert (states @ lm.head.T).abs().max() > 1e3 and lm.blocked.any()
    generation = generate(lm, prompts, [9], temperature=config.temperature, top_p=config.top_p)
    assert not lm.blocked[generation.ids[0]].any()
