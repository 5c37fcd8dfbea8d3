"""Int8 weights of torchao: as exact as the rounding of weights allows, also in the decoder of arkasr."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny import eager_to_stop, student, waveform
from torch import nn
from transformers import AutoModelForCausalLM, TorchAoConfig

from arkasr import ArkasrProcessor, UserError, load_speech_lm
from arkasr.transcription.recognizer import Recognizer

quantization = pytest.importorskip("torchao.quantization", reason="needs torchao, which no extra installs")
CLIPS = [waveform(n, n) for n in (8000, 5000, 11000)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved student. Tests do not write into it."""
    path = tmp_path_factory.mktemp("saved") / "model"
    eager_to_stop(student(5), 2.0).save(path)
    return path


@pytest.fixture(scope="module")
def quantized(folder):
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config)


def linear_layers(model):
    """Return the linear layers by name, but the head, whose weight is that of the embedding."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name != "lm_head"}


def reference_model(folder, quantized):
    """Return the model with the weights that the integers of the quantised one stand for."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    for name, layer in linear_layers(quantized).items():
        integers, scale = layer.weight.qdata, layer.weight.scale
        model.get_submodule(name).weight = nn.Parameter(integers.float() * scale)
    return model


def test_all_linear_layers_but_the_head_are_rounded_to_int8(folder, quantized):
    plain = linear_layers(AutoModelForCausalLM.from_pretrained(folder))
    found = linear_layers(quantized)
    assert len(found) == len(plain) > 20
    assert type(quantized.lm_head.weight) is nn.Parameter
    for name, layer in found.items():
        weight, scale = plain[name].weight, layer.weight.scale
        assert layer.weight.qdata.dtype == torch.int8 and layer.weight.qdata.shape == weight.shape
        torch.testing.assert_close(scale[:, 0], weight.abs().amax(1) / 127.5)
        # half a step, and a whole one for the largest weight, as 127.5 is clipped to 127
        assert ((layer.weight.qdata.float() * scale - weight).abs() <= 0.51 * scale).all()


@torch.no_grad()
def test_int8_model_computes_and_generates_what_its_weights_say(folder, quantized):
    inputs = ArkasrProcessor.from_pretrained(folder)(CLIPS)
    reference = reference_model(folder, quantized)
    torch.testing.assert_close(quantized(**inputs).logits, reference(**inputs).logits, atol=2e-5, rtol=1e-5)
    options = {"max_new_tokens": 10}
    assert torch.equal(quantized.generate(**inputs, **options), reference.generate(**inputs, **options))


@torch.no_grad()
def test_int8_model_transcribes_in_the_decoder_of_arkasr(folder, quantized):
    lm, plain = load_speech_lm(str(folder)), load_speech_lm(str(folder))
    quantization.quantize_(lm.hf.model, quantization.Int8WeightOnlyConfig())  # without the head
    plain.hf.load_state_dict(copy.deepcopy(reference_model(folder, quantized).state_dict()))
    texts = [Recognizer("tiny", one).transcribe(CLIPS, ["English"] * len(CLIPS)) for one in (lm, plain)]
    assert texts[0] == texts[1] and all(texts[0])


def test_saved_int8_weights_are_refused(quantized, tmp_path):
    quantized.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="quantised weights cannot be read"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
