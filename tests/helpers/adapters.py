"""Models with LoRA adapters whose matrices B are not 0, so that they change the outputs."""

from __future__ import annotations

import torch
from tiny import student

from arkasr.config.schema import LoraConfig, ModelConfig
from arkasr.model.lora import train_parts


def lora_settings(**lora) -> ModelConfig:
    freeze = lora.pop("freeze", [])
    return ModelConfig(path="base", freeze=freeze, lora=LoraConfig(**{"rank": 3, "alpha": 6.0} | lora))


def adapted(lm=None, seed: int = 0, **lora):
    """Return a model with adapters that change its outputs."""
    lm = lm or student(10)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        train_parts(lm, lora_settings(**lora))
        for name, weight in lm.hf.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(weight, std=0.2)
    return lm
