"""Numbers of parameters of published models."""

from __future__ import annotations

import pytest

from arkasr.planning import model_sizes


@pytest.mark.parametrize(
    ("path", "total"),
    [
        ("openai/whisper-large-v3", 1_543_490_560),
        ("AutoArk-AI/ARK-ASR-0.6B", 1_152_556_800 - 1500 * 1280),  # the published files hold unused positions too
        ("Qwen/Qwen3-ASR-1.7B-hf", 2_038_052_480),
        ("Qwen/Qwen3-ASR-0.6B", 782_426_112),
    ],
)
def test_count_parameters_of_published_sizes(path, total):
    config, source = model_sizes.read_model_config(path)
    counts = model_sizes.count_parameters(model_sizes.meta_model(config))
    assert counts.total == total and source == "the table of published sizes"
