"""Predicted FLOPs compared with those that torch counts while real steps run on the CPU, phase by phase."""

from __future__ import annotations

import pytest
import torch
from tiny import ARK_SIZES, batch, ctc_tokens, student, student_tokenizer, teacher
from tiny_teachers import glm, save_whisper
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.distill.rollout import roll_out
from arkasr.distill.step import Opd
from arkasr.model.build import build_fresh, freeze
from arkasr.planning import flops
from arkasr.plugins import registry
from arkasr.training.objectives import SupervisedObjective
from arkasr.utils.timing import Phases

CAP, TOP_K = 20, 8
TEXT = "one two three four five"


def count_flops(work) -> float:
    """Run `work` and return the FLOPs that torch counts. The MATH backend is used, because torch counts it on CPUs."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def prompt_tokens(lm) -> int:
    return sum(len(lm.tokenizer.encode(text, add_special_tokens=False)) for text in lm.prompt_text("English"))


@pytest.fixture(scope="module")
def opd(tmp_path_factory) -> Opd:
    folder = tmp_path_factory.mktemp("teacher")
    teacher(n_window_infer=400).save(folder)
    options = {"path": str(folder), "dtype": "float32"}
    qwen = registry.create("teacher", "qwen3_asr", options, device="cpu")
    mapper = registry.create("token_mapper", "shared_strings", {}, student=student(), teacher=qwen)
    return make_opd(qwen, mapper, "union_topk_kl")


def make_opd(qwen, mapper, loss_name: str) -> Opd:
    rollout = RolloutConfig(max_new_tokens=CAP, tokens_per_second=0)
    loss = registry.create("loss", loss_name, {})
    return Opd(qwen, mapper, loss, rollout, DistillConfig(top_k=TOP_K, diagnose_every=0))


def workload_of(opd: Opd, lm, clips, scored) -> flops.Workload:
    student_ids = scored.rollout.generation.ids
    teacher_ids = opd.mapper.align(student_ids).teacher_ids
    return flops.Workload(
        clips=len(clips.ids),
        seconds=clips.seconds,
        transcripts=len(student_ids),
        tokens=sum(map(len, student_ids)),
        rollout_tokens=scored.rollout.num_rolled * CAP,
        teacher_tokens=sum(map(len, teacher_ids)),
        prompts=(prompt_tokens(lm), prompt_tokens(opd.teacher.lm)),
    )


def shared_features(opd: Opd, clips) -> float:
    """Return the FLOPs of the teacher's features, which are those of the student if both have as many mel filters."""
    per_clip = flops.audio_encoder(opd.teacher.lm.hf.config, clips.seconds / len(clips.ids))
    return len(clips.ids) * per_clip["features"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frozen", "loss"),
    [([], "union_topk_kl"), (["encoder"], "union_topk_kl"), (["decoder"], "union_topk_kl"), ([], "full_kl")],
)
def test_distillation_step_matches_torch_per_phase(opd, frozen, loss):
    """Measured differences: 0.1 % forward, 2 % backward.

    Backward it is 9 % where the first trained layer belongs to the adapter: this layer passes no gradient on.
    """
    lm, clips = student().train(), batch([80000] * 3, [TEXT] * 3)
    opd = make_opd(opd.teacher, opd.mapper, loss)
    freeze(lm, frozen)
    counted, phases = {}, Phases()
    collected, rescored = [], []
    collect = count_flops(lambda: collected.append(opd.collect(lm, clips, phases)))
    load = workload_of(opd, lm, clips, collected[0])
    assert load.rollout_tokens == load.tokens  # no row ends early, so no row waits for another
    counted["rollout"] = count_flops(
        lambda: roll_out(lm, clips.waveforms, clips.languages, clips.texts, opd.rollout, TOP_K)
    )
    counted["teacher"] = collect - counted["rollout"]
    counted["student"] = count_flops(lambda: rescored.append(opd.rescore(lm, collected[0])[0]))
    counted["backward"] = count_flops(lambda: rescored[0].backward())
    predicted = flops.distillation_step(
        lm.hf.config, opd.teacher.lm.hf.config, load, TOP_K, frozen, dense=loss == "full_kl"
    )
    predicted["rollout"] += predicted.pop("decode")
    predicted["teacher"] -= shared_features(opd, clips)
    assert predicted.pop("backward") == pytest.approx(counted.pop("backward"), rel=0.1)
    if loss == "full_kl":  # no logits are computed at positions without a counterpart in the teacher's tokens
        predicted["student"] -= 3 * flops.head(lm.hf.config, load.tokens - len(collected[0].student_rows))
    assert predicted == pytest.approx(counted, rel=0.01)


@pytest.mark.slow
def test_distillation_step_of_unequal_clips_is_below_count_because_padding_is_ignored(opd):
    """Clips of 3 to 5 s, two samples each."""
    lm, clips = student().train(), batch([48000, 56000, 64000, 72000, 80000])
    opd = Opd(opd.teacher, opd.mapper, opd.loss, RolloutConfig(CAP, 0, temperature=1.0, samples=2), opd.distill)
    collected = []

    def step():
        collected.append(opd.collect(lm, clips, Phases()))
        opd.rescore(lm, collected[0])[0].backward()

    counted = count_flops(step)
    load = workload_of(opd, lm, clips, collected[0])
    predicted = flops.distillation_step(lm.hf.config, opd.teacher.lm.hf.config, load, TOP_K)
    assert 0.75 * counted < sum(predicted.values()) < counted


@pytest.mark.parametrize(("ctc", "own"), [(0.0, False), (0.5, False), (1.0, False), (0.5, True), (1.0, True)])
def test_supervised_step_matches_torch_per_phase(ctc, own):
    lm, clips, losses = student().train(), batch([80000] * 3, [TEXT] * 3), []
    tokenizer = ctc_tokens(30) if own else None
    if ctc:
        lm.add_ctc_head(tokenizer)
    tokens = 3 * len(lm.text_ids(TEXT))
    load = flops.Workload(3, 15.0, 3, tokens, prompts=(prompt_tokens(lm), 0))
    own_tokens = tokenizer.get_vocab_size() if tokenizer else 0
    predicted = flops.supervised_step(lm.hf.config, load, ctc_weight=ctc, ctc_tokens=own_tokens)
    counted = {"student": count_flops(lambda: losses.append(SupervisedObjective(ctc)(lm, clips, Phases())))}
    counted["backward"] = count_flops(lambda: losses[0].total.backward())
    assert predicted == pytest.approx(counted, rel=0.03)


def test_teacher_scoring_matches_torch_for_whisper_and_glm(tmp_path):
    save_whisper(tmp_path / "whisper")
    glm().save(tmp_path / "glm")
    clips, ids = batch([24000] * 2), [[5, 6, 7, 8]] * 2
    for name, folder in (("whisper", "whisper"), ("glmasr", "glm")):
        plugin = registry.create("teacher", name, {"path": str(tmp_path / folder), "dtype": "float32"}, device="cpu")
        counted = count_flops(lambda plugin=plugin: plugin.score(clips.waveforms, clips.languages, ids))
        lm = getattr(plugin, "lm", None)
        config = lm.hf.config if lm else plugin.model.config
        prompt = prompt_tokens(lm) if lm else len(plugin.prompt("English"))
        load = flops.Workload(2, 3.0, 2, 8, 0, 8, (0, prompt))
        assert flops.teacher_scoring(config, load) == pytest.approx(counted, rel=0.03), name


def test_decoder_blocks_attention_is_quadratic_and_rest_linear_in_length():
    config = student().hf.config
    linear = flops.decoder_blocks(config, 10, 0)
    assert flops.decoder_blocks(config, 20, 0) == 2 * linear
    assert flops.decoder_blocks(config, 20) - 2 * linear == 4 * (flops.decoder_blocks(config, 10) - linear) > 0


def test_decoder_blocks_counts_every_layer():
    sizes = ARK_SIZES | {"text": ARK_SIZES["text"] | {"num_hidden_layers": 5}}
    deep, shallow = build_fresh("arkasr", sizes, student_tokenizer()).hf, student().hf
    counted = count_flops(lambda: deep.model.language_model(inputs_embeds=torch.zeros(1, 30, 24), use_cache=False))
    counted -= count_flops(lambda: shallow.model.language_model(inputs_embeds=torch.zeros(1, 30, 24), use_cache=False))
    difference = flops.decoder_blocks(deep.config, 30) - flops.decoder_blocks(shallow.config, 30)
    assert difference == pytest.approx(counted)
