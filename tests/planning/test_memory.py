"""Predicted memory compared with what optimizers, autograd and caches hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from corpus_fixture import make_trainer, write_corpus
from planned_runs import planned
from saved_tensors import SIZES, saved_bytes
from tiny import batch, student, student_tokenizer, teacher_tokenizer

from arkasr.model.build import build_fresh
from arkasr.model.dropout import add_dropout
from arkasr.model.generation.engine import Engine
from arkasr.model.generation.weights import current_weights
from arkasr.planning import memory
from arkasr.planning.activations import activations, dropout_masks
from arkasr.planning.flops import PROMPT
from arkasr.planning.layout import BatchShape, ShardingLayout

QWEN = {
    "audio": {"d_model": 64, "encoder_ffn_dim": 256, "encoder_layers": 3, "encoder_attention_heads": 2}
    | {"num_mel_bins": 32, "downsample_hidden_size": 24, "n_window": 50, "n_window_infer": 800},
    "text": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "head_dim": 16},
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


@pytest.mark.parametrize("kind", ["arkasr", "qwen3_asr"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_bytes_saved_by_autograd(kind, dtype):
    """With bfloat16 the model has bfloat16 weights, as the gathered weights under FSDP2."""
    sizes, tokenizer = (SIZES, student_tokenizer()) if kind == "arkasr" else (QWEN, teacher_tokenizer())
    with torch.random.fork_rng():
        lm = build_fresh(kind, sizes, tokenizer).to(getattr(torch, dtype)).train()
    clips, ids = batch([80000] * 4), [[5] * 30] * 4
    audio = lm.encode_audio(clips.waveforms)
    prompt = sum(len(lm.tokenizer.encode(t, add_special_tokens=False)) for t in lm.prompt_text("English"))
    size = getattr(torch, dtype).itemsize
    shape = BatchShape(4, 5.0, 4, 30 + prompt - PROMPT[kind])  # the prompt is longer than with the published tokenizer
    encoder, decoder = activations(lm.hf.config, shape, size)
    assert encoder == pytest.approx(saved_bytes(lambda: lm.encode_audio(clips.waveforms), lm.parameters()), rel=0.03)
    prompts = [p.detach() for p in lm.embed_prompts(audio, clips.languages)]
    saved = saved_bytes(lambda: lm.transcript_states(prompts, ids), lm.parameters())
    assert decoder == pytest.approx(saved, rel=0.06)


def test_kv_cache_and_tables_are_the_memory_of_a_decoding_state():
    lm = student()
    engine = Engine(current_weights(lm))
    state = engine.state(rows=3, length=40, top_k=8)
    assert memory.kv_cache(lm.hf.config, 3, 40, 4) == engine.block.nbytes
    assert memory.token_tables(3, 40, 8) == state.ids.nbytes + state.topk.nbytes


def test_cache_shape_is_rounded_up_as_on_a_gpu():
    config = student().hf.config
    shape = BatchShape(33, 10.0, 33, 64)  # prompts of 125 audio tokens and 10 others
    assert memory.cache_shape(config, shape) == (40, 256)
    assert memory.cache_shape(config, replace(shape, tokens=122)) == (40, 512)


KEPT = "fsdp.activation_checkpointing=none"


def items(*overrides: str, **assumptions) -> dict[str, float]:
    return planned("base_opd", overrides, **assumptions)["memory_gib"]["items"]


def test_memory_items_shrink_with_sharding_and_recomputation():
    one, many, nodes = items(gpus=1), items("fsdp.replicate=1"), items("fsdp.replicate=0")
    for name in ("weights", "gradients", "adamw"):
        assert one[name] == pytest.approx(24 * many[name]) == pytest.approx(8 * nodes[name])
    assert one["teacher weights"] == pytest.approx(
        24 * items("fsdp.teacher=shard", "fsdp.replicate=1")["teacher weights"]
    )
    assert many["weights gathered for decoding"] == one["weights"] / 2  # bfloat16
    assert many["copy of decoder"] * 2**30 == 2 * 494_032_768
    kept = items("fsdp.reshard_after_forward=false")
    assert kept["weights gathered for training"] == many["weights gathered for decoding"]
    assert many["encoder activations"] < items(KEPT)["encoder activations"] / 8
    peaks, others = (planned("base_opd", words)["memory_gib"]["peaks"] for words in ((), (KEPT,)))
    assert peaks["backward"] < others["backward"] / 3


def test_single_process_gathers_and_copies_only_for_another_compute_dtype():
    same = items("fsdp.compute_dtype=float32", gpus=1)
    assert same["weights gathered for decoding"] == same["copy of decoder"] == 0
    other = items(gpus=1)
    assert other["weights gathered for decoding"] == other["weights"] / 2
    assert other["copy of decoder"] > 0


def test_evaluation_uses_the_larger_cache_and_has_a_peak():
    result = planned("base", gpus=1)["memory_gib"]
    quiet = planned("base", ("train.eval_every=0",), gpus=1)["memory_gib"]
    assert "evaluation" in result["peaks"] and "evaluation" not in quiet["peaks"]
    assert not {"kv cache", "copy of decoder", "weights gathered for decoding"} & set(quiet["items"])
    assert result["items"]["kv cache"] == items("train.eval_clips=480", gpus=1)["kv cache"]
    few = ("train.eval_clips=1",)
    assert items(*few, gpus=1)["kv cache"] == items("train.eval_every=0", gpus=1)["kv cache"]


def test_head_items_are_parts_of_the_size_of_a_gpu():
    few = items("data.max_seconds=36", "rollout.max_new_tokens=8")
    assert few["gathered head rows"] * 2**30 == 2 * (3 * 8) * (2 * 32) * 896
    assert few["logits for diagnostics"] * 2**30 == 4 * (3 * 8) * 151936
    many = items()
    assert many["gathered head rows"] == 2 * 2**26 / 2**30 and 0.99 < many["logits for diagnostics"] <= 1
    assert "logits" not in many and "logits for diagnostics" not in items("distill.diagnose_every=0")
    dense = items("loss.name=full_kl")
    assert 0.99 < dense["logits"] <= 1 and "gathered head rows" not in dense


def test_phase_peaks_are_sums_of_items_alive_together():
    of = {"weights": 1.0, "adamw": 2.0, "gradients": 1.0, "teacher weights": 4.0, "kv cache": 5.0}
    of |= {"next-token logits": 1.0, "rollout activations": 3.0, "weights gathered for decoding": 8.0}
    of |= {"copy of decoder": 2.0, "token tables": 1.0}
    of |= {"teacher logits": 6.0, "teacher activations": 7.0}
    of |= {"encoder activations": 20.0, "decoder activations": 10.0, "head gradient": 9.0}
    of |= {"weights gathered for training": 0.5, "gathered head rows": 2.0, "logits for diagnostics": 4.0}
    of |= {"evaluation activations": 2.0}
    always = 1 + 2 + 4 + 5 + 1 + 2 + 1
    assert memory.phase_peaks(of, accumulate=False) == {
        "rollout": always + 8 + 3 + 20,
        "teacher": always + 12 + 20,
        "student": always + 0.5 + 30 + 6 + 8,
        "backward": always + 0.5 + 9 + 6 + 30,
        "optimizer": always + 1,
        "evaluation": always + 8 + 2,
    }
    assert memory.phase_peaks(of, accumulate=True)["rollout"] == always + 8 + 3 + 20 + 1


def test_largest_batch_is_the_bound_of_padded_batches():
    """No batch is larger: padded audio has at most max_seconds, or one clip of max_clip_seconds."""
    mean = items()
    twice = items("data.max_seconds=1200", "data.max_cuts=80")
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


@pytest.mark.parametrize("recompute", [False, True])
def test_dropout_keeps_a_byte_per_value_that_it_drops_from(recompute):
    """The reference counts the values that pass the dropout of each layer. torch's fused one keeps a bool for each."""
    lm, clips, counts = student(), batch([80000] * 3, ["she sells"] * 3), {"encoder": [], "decoder": []}
    add_dropout(lm, 0.1)
    for part, tower in (("encoder", lm.hf.model.audio_tower), ("decoder", lm.hf.model.language_model)):
        for module in (m for m in tower.modules() if isinstance(m, torch.nn.Dropout)):
            module.register_forward_hook(lambda _, inputs, output, part=part: counts[part].append(output.numel()))
    ids = [lm.text_ids(text) for text in clips.texts]
    prompt = sum(len(lm.tokenizer.encode(text, add_special_tokens=False)) for text in lm.prompt_text("English"))
    lm.transcript_states(lm.embed_prompts(lm.encode_audio(clips.waveforms), clips.languages), ids)
    shape = BatchShape(3, 5.0, 3, len(ids[0]) + prompt - PROMPT["arkasr"])
    layout = ShardingLayout(1, 1, 4, 4, 4, recompute=recompute)
    found = dropout_masks(lm.hf.config, shape, ("encoder", "decoder"), layout)
    for part, values in counts.items():
        assert found[part] == pytest.approx(sum(values[-2:] if recompute else values), rel=0.03), part
    assert dropout_masks(lm.hf.config, shape, ("decoder",), layout) == {"encoder": 0.0, "decoder": found["decoder"]}
