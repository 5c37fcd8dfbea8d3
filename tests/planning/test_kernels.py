"""Predicted kernels and bytes compared with the operations of real passes, block by block."""

from __future__ import annotations

import pytest
import torch
from kernel_counts import count_kernels
from tiny import batch, student_tokenizer, teacher_tokenizer

from arkasr.model.build import build_fresh
from arkasr.model.generation import generate
from arkasr.planning import kernels
from arkasr.planning.activations import activations
from arkasr.planning.layout import BatchShape

CLIPS, SECONDS, TOKENS = 4, 10, 64
pytestmark = pytest.mark.slow


def model(kind: str, layers: int):
    """Return a bfloat16 model with the published proportions of widths."""
    text = {"num_hidden_layers": layers, "max_position_embeddings": 4096}
    if kind == "arkasr":
        audio = {"hidden_size": 320, "intermediate_size": 1280, "num_attention_heads": 5, "num_mel_bins": 16}
        text |= {"hidden_size": 224, "intermediate_size": 1216, "num_attention_heads": 14, "num_key_value_heads": 2}
        sizes, tokenizer = {"audio": audio | {"num_hidden_layers": layers}, "text": text}, student_tokenizer()
    else:
        audio = {"d_model": 128, "encoder_ffn_dim": 512, "encoder_layers": layers, "encoder_attention_heads": 4}
        audio |= {"num_mel_bins": 16, "downsample_hidden_size": 8, "n_window": 50, "n_window_infer": 800}
        text |= {"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 16, "num_key_value_heads": 8}
        sizes, tokenizer = {"audio": audio, "text": text | {"head_dim": 16}}, teacher_tokenizer()
    return build_fresh(kind, sizes, tokenizer).to(torch.bfloat16).eval()


def counts(kind: str, layers: int) -> dict:
    """Return the counts of both passes, forward and backward, and the size of the batch."""
    lm, clips = model(kind, layers), batch([16000 * SECONDS] * CLIPS)
    lm.encode_audio(clips.waveforms)  # fills caches
    found, kept = {}, []
    found["encoder"] = count_kernels(lambda: kept.append(lm.encode_audio(clips.waveforms)))
    audio = [a.detach().requires_grad_() for a in kept[0]]
    prompts = lm.embed_prompts(audio, clips.languages)
    ids = [[5] * TOKENS] * CLIPS
    found["decoder"] = count_kernels(lambda: kept.append(lm.transcript_states(prompts, ids)))
    found["decoder backward"] = count_kernels(lambda: kept[1].sum().backward())
    total = sum(a.sum() for a in kept[0])
    found["encoder backward"] = count_kernels(lambda: total.backward())
    return found


@pytest.fixture(scope="module", params=["arkasr", "qwen3_asr"])
def per_block(request):
    """Return the kind of model, and kernels and bytes of one more block of encoder and decoder."""
    with torch.random.fork_rng():
        fewer, more = counts(request.param, 1), counts(request.param, 2)
    found = {name: (more[name].kernels - fewer[name].kernels, more[name].moved - fewer[name].moved) for name in more}
    return request.param, found


def test_kernels_per_block_match_a_forward_pass(per_block):
    kind, found = per_block
    encoder, decoder = kernels.PER_BLOCK[kind]
    assert decoder == pytest.approx(found["decoder"][0], rel=0.1)
    assert encoder == pytest.approx(found["encoder"][0], rel=0.1)
    for part in ("encoder", "decoder"):
        assert 1.5 < found[f"{part} backward"][0] / found[part][0] < 3


def test_bytes_moved_per_block_follow_the_activations(per_block):
    kind, found = per_block
    shape = BatchShape(CLIPS, SECONDS, CLIPS, TOKENS)
    fewer, more = (activations(model(kind, layers).hf.config, shape, 2) for layers in (1, 2))
    for part, few, many, factor in zip(
        ("encoder", "decoder"), fewer, more, (kernels.ENCODER_MOVES[kind], kernels.DECODER_MOVES[kind]), strict=True
    ):
        assert factor * (many - few) == pytest.approx(found[part][1], rel=0.25)
        assert 2 * factor * (many - few) == pytest.approx(found[f"{part} backward"][1], rel=0.25)


@pytest.mark.parametrize("kind", ["arkasr", "qwen3_asr"])
def test_kernels_of_a_decoding_step_match_the_step(kind):
    with torch.random.fork_rng():
        lm = model(kind, 3)
    lm.blocked[lm.stop_ids] = True
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(batch([16000] * 2).waveforms), ["English"] * 2)
        found = [count_kernels(lambda n=n: generate(lm, prompts, [n] * 2, 4)).kernels for n in (17, 18)]
    assert kernels.decoding_step(lm.hf.config, compiled=False) == pytest.approx(found[1] - found[0], rel=0.05)
