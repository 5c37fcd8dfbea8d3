"""The 0.6B model at its true size on the meta device: number of parameters, and names and shapes of all tensors."""

from __future__ import annotations

import math

import pytest
import torch
from published_folder import TRUE_ENCODER, TRUE_SIZES, published_config, published_shapes

from arkasr import ArkasrConfig, ArkasrForConditionalGeneration
from arkasr.model.arkasr import published_weights


@pytest.fixture(scope="module")
def true_size():
    """The flat configuration of the 0.6B model, and the model on the meta device."""
    ids = {"audio_token_id": 151663, "eos_token_id": 151645, "pad_token_id": 151643, "bos_token_id": 151643}
    config = published_config(TRUE_SIZES, TRUE_ENCODER, **ids)
    with torch.device("meta"):
        return config, ArkasrForConditionalGeneration(ArkasrConfig.from_dict(config))


def test_true_size_has_the_published_number_of_parameters(true_size):
    config, hf = true_size
    positions = 1500 * 1280  # in the published file, but unused
    stored = sum(math.prod(shape) for name, shape in published_shapes(config).items() if name != "lm_head.weight")
    assert stored == hf.num_parameters() + positions == 1_152_556_800


@pytest.mark.slow
def test_true_size_has_exactly_the_published_tensors(true_size):
    config, hf = true_size
    shapes = published_shapes(config)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    loaded, info = ArkasrForConditionalGeneration.from_pretrained(
        None, config=hf.config, state_dict=state, device_map="meta", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values()) and loaded.state_dict().keys() == hf.state_dict().keys()
    written = published_weights.published_state(hf, hf.state_dict())
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == shapes


@pytest.mark.parametrize("change", [{}, {"audio_encoder.whisper.layers.31.fc1.weight": (5120, 1279)}])
def test_true_size_refuses_a_missing_or_mismatched_tensor(true_size, change):
    config, hf = true_size
    shapes = published_shapes(config)
    del shapes["audio_encoder.whisper.layers.31.fc1.weight"]
    shapes |= change
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with pytest.raises(ValueError, match=r"layers\.31"):
        ArkasrForConditionalGeneration.from_pretrained(None, config=hf.config, state_dict=state, device_map="meta")
