"""Predicted memory compared with what optimizers, autograd and caches hold."""

from __future__ import annotations

import pytest
import torch
from corpus_fixture import make_trainer, write_corpus
from planned_runs import planned
from tiny import batch, student, student_tokenizer

from arkasr.model.build import build_fresh
from arkasr.model.generation import cache_argument
from arkasr.planning import memory

SIZES = {
    "audio": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 2}
    | {"num_mel_bins": 16},
    "text": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    | {"num_key_value_heads": 2},
}


@pytest.mark.parametrize(("freeze", "ctc"), [([], 0.5), (["encoder"], 0.0)])
def test_training_state_is_bytes_held_after_a_step(conf, tmp_path, freeze, ctc):
    data = write_corpus(tmp_path / "data")
    overrides = [f"model.freeze={freeze}", f"train.ctc_weight={ctc}"]
    trainer = make_trainer(conf, "base", tmp_path, data, *overrides)
    trainer.optimizer.zero_grad = lambda set_to_none: None  # gradients exist during the optimizer step
    trainer.take_step(iter(trainer.batches))
    params = list(trainer.student.parameters())
    vocab_size = trainer.student.hf.config.text_config.vocab_size
    plan_overrides = (*overrides, f"model.sizes.text.vocab_size={vocab_size}")
    predicted = planned("base", plan_overrides, str(conf), gpus=1)["memory_gib"]["items"]
    states = [s[name] for s in trainer.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    grads = [p.grad for p in params if p.grad is not None]
    for name, tensors in (("weights", params), ("gradients", grads), ("adamw", states)):
        assert predicted[name] * 2**30 == sum(t.nbytes for t in tensors), name


def saved_bytes(work, parameters) -> int:
    """Return the bytes of all tensors that autograd saves for backward, except parameters."""
    known, kept = {p.untyped_storage().data_ptr() for p in parameters}, {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in known)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_bytes_saved_by_autograd(dtype):
    """With bfloat16 the model has bfloat16 weights, as the gathered weights under FSDP2."""
    with torch.random.fork_rng():
        lm = build_fresh("arkasr", SIZES, student_tokenizer()).to(getattr(torch, dtype)).train()
    clips, ids = batch([80000] * 4), [[5] * 30] * 4
    audio = lm.encode_audio(clips.waveforms)
    prompt = sum(len(lm.tokenizer.encode(t, add_special_tokens=False)) for t in lm.prompt_text("English"))
    layout = memory.ShardingLayout(1, 1, 4, getattr(torch, dtype).itemsize, 4)
    shape = memory.BatchShape(4, 5.0, 4, 30 + prompt - 10)  # the prompt is longer than with the published tokenizer
    encoder, decoder = memory.activations(lm.hf.config, shape, layout)
    assert encoder == pytest.approx(saved_bytes(lambda: lm.encode_audio(clips.waveforms), lm.parameters()), rel=0.03)
    prompts = [p.detach() for p in lm.embed_prompts(audio, clips.languages)]
    saved = saved_bytes(lambda: lm.transcript_states(prompts, ids), lm.parameters())
    assert decoder == pytest.approx(saved, rel=0.06)


def test_kv_cache_is_bytes_of_cached_keys_and_values():
    lm = student()
    text, rows = lm.hf.config.text_config, torch.zeros(3, 40, 24)
    output = lm.hf.model.language_model(inputs_embeds=rows, use_cache=True)
    cache = getattr(output, cache_argument(lm.hf.model.language_model))
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    shape = memory.BatchShape(3, 1.6, 3, 10)  # 20 audio tokens, 10 tokens of the prompt, 10 generated tokens
    predicted = memory.kv_cache(lm.hf.config, shape, 4)
    assert predicted * text.num_hidden_layers / (text.num_hidden_layers + 1) == cached


def items(*overrides: str, **assumptions) -> dict[str, float]:
    return planned("base_opd", overrides, **assumptions)["memory_gib"]["items"]


def test_memory_items_shrink_with_sharding_and_recomputation():
    one, many, nodes = items(gpus=1), items(), items("fsdp.replicate=0")
    for name in ("weights", "gradients", "adamw"):
        assert one[name] == pytest.approx(24 * many[name]) == pytest.approx(8 * nodes[name])
    assert one["teacher weights"] == pytest.approx(24 * items("fsdp.teacher=shard")["teacher weights"])
    assert many["weights gathered for rollout"] == one["weights"] / 2  # bfloat16
    kept = items("fsdp.reshard_after_forward=false")
    assert kept["weights gathered for training"] == many["weights gathered for rollout"]
    recomputed = items("fsdp.activation_checkpointing=blocks")
    assert recomputed["encoder activations"] < many["encoder activations"] / 8
    peaks = planned("base_opd", ("fsdp.activation_checkpointing=blocks",))["memory_gib"]["peaks"]
    assert peaks["backward"] < planned()["memory_gib"]["peaks"]["backward"] / 3


def test_phase_peaks_are_sums_of_items_alive_together():
    of = {"weights": 1.0, "adamw": 2.0, "gradients": 1.0, "teacher weights": 4.0, "kv cache": 5.0}
    of |= {"next-token logits": 1.0, "rollout activations": 3.0, "weights gathered for rollout": 8.0}
    of |= {"teacher logits": 6.0, "teacher activations": 7.0}
    of |= {"encoder activations": 20.0, "decoder activations": 10.0, "head gradient": 9.0}
    of |= {"weights gathered for training": 0.5, "optimizer buffers": 1.0}
    assert memory.phase_peaks(of, accumulate=False) == {
        "rollout": 7 + 8 + 6 + 20,
        "teacher": 7 + 12 + 20,
        "student": 7 + 0.5 + 30 + 6,
        "backward": 7 + 0.5 + 9 + 30,
        "optimizer": 7 + 1 + 1,
    }
    assert memory.phase_peaks(of, accumulate=True)["rollout"] == 7 + 8 + 6 + 20 + 1


def test_largest_batch_is_the_bound_of_padded_batches():
    """No batch is larger: padded audio has at most max_seconds, or one clip of max_clip_seconds."""
    mean = items()
    twice = items("data.max_seconds=960", "data.max_cuts=80")
    assert twice["encoder activations"] == pytest.approx(2 * mean["encoder activations"])
    alone = items("data.max_seconds=10", "data.max_clip_seconds=30")
    assert alone["encoder activations"] == pytest.approx(items("data.max_seconds=30")["encoder activations"])
    assert items("data.max_seconds=.inf")["encoder activations"] == pytest.approx(mean["encoder activations"])


def test_supervised_batch_is_padded_to_the_longest_transcript_within_the_text_bound():
    def decoder(*overrides, **assumptions):
        return planned("base", overrides, **assumptions)["memory_gib"]["items"]["decoder activations"]

    even, longer = decoder(max_length_ratio=1.0), decoder(max_length_ratio=2.0)
    assert even < longer < decoder(max_length_ratio=100.0)
    assert decoder(max_length_ratio=100.0) == decoder(max_length_ratio=50.0)  # 50 bytes per second (data section)
    assert decoder("data.text_bytes_per_second=3.6", max_length_ratio=2.0) == pytest.approx(even, rel=0.01)
