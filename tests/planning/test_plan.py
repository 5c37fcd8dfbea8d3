"""Predictions of `arkasr plan` compared with what models, optimizers and autograd hold. Weights are never read."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from corpus_fixture import CONF, make_trainer, write_corpus
from tiny import batch, student, student_tokenizer

from arkasr import cli
from arkasr.config.load import load_config
from arkasr.errors import UserError
from arkasr.model.build import build_fresh
from arkasr.model.generation import cache_argument
from arkasr.planning import memory, model_sizes, plan
from arkasr.planning.forecast import Assumptions
from arkasr.planning.plan import forecast, student_outline, table, teacher_outline

PAPER = str(Path(__file__).parents[2] / "egs/librispeech/conf/paper.yaml")
SIZES = {
    "audio": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 2}
    | {"num_mel_bins": 16},
    "text": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    | {"num_key_value_heads": 2},
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Fail if anything opens a network connection."""

    def refuse(*_):
        raise AssertionError("a network connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def planned(run: str = "base_opd", overrides: tuple[str, ...] = (), conf: str = PAPER, **assumptions) -> dict:
    config = load_config(conf, run, "{expdir}", "{datadir}", overrides)
    return forecast(conf, config, Assumptions(**{"gpus": 24} | assumptions))


@pytest.fixture(scope="module", autouse=True)
def outline_cache():
    """Count the parameters of each model only once in this file: building the paper's models takes one second."""
    outlines, outline = {}, plan._outline

    def cached(config, source):
        key = config.to_json_string()
        outlines[key] = outlines.get(key) or outline(config, source)
        return replace(outlines[key], source=source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_outline", cached)
        yield


@pytest.fixture(scope="module")
def conf(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("conf") / "conf.yaml"
    path.write_text(CONF)
    return path


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


def test_student_outline_predicts_vocabulary_of_trained_tokenizer(conf, tmp_path):
    data = write_corpus(tmp_path / "data")
    for run, override in (("base", "tokenizer.vocab_size=24"), ("teacher", "tokenizer.vocab_size=262")):
        trainer = make_trainer(conf, run, tmp_path, data, override)
        config = load_config(conf, run, "{expdir}", "{datadir}", [override])
        predicted = student_outline(str(conf), config).config.text_config.vocab_size
        assert predicted == trainer.student.hf.config.text_config.vocab_size, run


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


def test_student_outline_of_paper_is_whisper_encoder_adapter_and_qwen_decoder():
    config = load_config(PAPER, "base_opd", "{expdir}", "{datadir}")
    counts = student_outline(PAPER, config).counts
    hidden = 2 * 896
    assert counts.decoder == 494_032_768
    assert counts.encoder == 636_968_960 - 1500 * 1280  # Whisper's encoder without its positions
    assert counts.adapter == (5120 * hidden + hidden) + (hidden * 896 + 896)
    assert teacher_outline(PAPER, config).counts.total == 2_038_052_480


def test_forecast_reads_model_folder_and_follows_runs_of_same_configuration(conf, tmp_path):
    student().save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    result = planned("base", (f"model.path={tmp_path / 'model'}", "train.ctc_weight=0"), str(conf))
    assert result["student"]["parameters"]["total"] == sum(p.numel() for p in student().parameters())
    assert result["student"]["source"] == "its folder"
    opd = planned("base_td_opd", conf=str(conf))
    assert opd["student"]["source"] == "run base_td: run base: model.sizes"
    assert opd["teacher"]["source"] == "run teacher: model.sizes"


def test_forecast_errors_name_the_key_and_what_to_do(conf):
    for override, message in (
        ("model.path=someone/model", "someone/model: no config.json here or in the Hub's cache"),
        ("model.path={expdir}/nothing/final", "no run is called 'nothing'"),
        ("model.path=Qwen/Qwen2.5-0.5B", "model_type 'qwen2' is not supported"),
        ("fsdp.replicate=5", "fsdp.replicate=5: 24 ranks cannot be split into 5 equal groups"),
        ("tokenizer.path=someone/words", "`model.sizes.text.vocab_size` is missing: set it"),
    ):
        with pytest.raises(UserError, match=message):
            planned("base", (override,), str(conf))


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


def test_phase_seconds_follow_the_limiting_assumption():
    base = planned()["seconds"]
    assert planned(mfu=0.8)["seconds"]["teacher"] == base["teacher"] / 2
    assert planned(mfu=0.8)["seconds"]["decode"] == base["decode"]
    assert planned(layer_ms=1.6)["seconds"]["decode"] == pytest.approx(2 * base["decode"])
    slow = planned(bandwidth=10.0)["seconds"]["decode"]
    assert planned(bandwidth=5.0)["seconds"]["decode"] == pytest.approx(2 * slow) and slow > base["decode"]
    assert planned(network=0.1)["seconds"]["student"] == pytest.approx(2 * 1_139_873_024 / 1e8, rel=1e-3)
    recomputed = planned("base_opd", ("fsdp.activation_checkpointing=blocks",), network=1e6)["seconds"]
    assert recomputed["backward"] == pytest.approx(1.5 * planned(network=1e6)["seconds"]["backward"], rel=1e-3)


def test_forecast_totals_are_steps_times_step():
    result = planned(hours=960.0, clip_seconds=12.0, batch_fill=1.0, tokens_per_second=4.0)
    assert result["step"]["clips"] == 24 * 40 and result["step"]["audio_seconds"] == 24 * 480
    assert result["step"]["tokens"] == 24 * 40 * 49
    total = result["all"]
    assert total["steps"] == 30000 and total["steps_per_epoch"] == pytest.approx(960 / 3.2)
    assert total["audio_hours"] == pytest.approx(96000) and total["epochs"] == pytest.approx(100)
    assert total["gpu_hours"] == pytest.approx(24 * total["hours"])
    assert total["hours"] == pytest.approx(30000 * sum(result["seconds"].values()) / 3600)
    assert planned()["all"]["epochs"] is None
    twice = planned("base_opd", ("train.accumulate=2",), batch_fill=1.0)
    assert twice["step"]["clips"] == 2 * result["step"]["clips"]


@pytest.mark.parametrize("run", ["base", "base_opd"])
def test_table_fits_80_columns_and_reports_insufficient_memory(run):
    for assumptions, fits in (({}, True), ({"gpus": 1, "hours": 100000.0}, True), ({"gpu_memory": 12.0}, False)):
        lines = table(planned(run, **assumptions))
        assert max(map(len, lines)) <= 80
        assert any("DOES NOT FIT" in line for line in lines) is not fits


def test_plan_verb_prints_table_and_json(capsys, conf):
    words = ["plan", PAPER, "--run", "base_opd", "--gpus", "24", "--hours", "960", "fsdp.replicate=0"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert (
        shown.startswith("run base_opd (opd), GPUs or processes: 24")
        and "epochs" in shown
        and "assumed: gpus 24" in shown
    )
    assert cli.main([*words, "--json", "--mfu", "0.5"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["assumptions"]["mfu"] == 0.5 and result["memory_gib"]["items"]["weights"] > 0
    assert cli.main(["plan", str(conf), "--run", "base", "--gpus", "1", "model.path=no/where"]) == 2
    with contextlib.suppress(SystemExit):
        cli.main(["plan", PAPER, "--run", "base", "--gpus", "1", "--mfu", "none"])
    assert "must be a number above 0, got 'none'" in capsys.readouterr().err


def test_documented_options_and_defaults_are_the_assumptions():
    page = (Path(__file__).parents[2] / "docs/plan.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `--(\w+)` \| (\w+(?:\.\d+)?)", page, re.M))
    assert documented.pop("gpus") == "required"
    defaults = {field.name: field.default for field in fields(Assumptions) if field.name != "gpus"}
    assert {name: float(value) for name, value in documented.items()} == defaults
