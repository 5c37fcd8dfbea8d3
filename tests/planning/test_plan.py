"""What `arkasr plan` says is what models, optimizers and autograd then hold; nothing is read but configurations."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import replace
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
from arkasr.planning.plan import forecast, student_of, table, teacher_of

PAPER = str(Path(__file__).parents[2] / "egs/librispeech/conf/paper.yaml")
SIZES = {
    "audio": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 2}
    | {"num_mel_bins": 16},
    "text": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    | {"num_key_value_heads": 2},
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Fail where anything asks the network."""

    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def planned(run: str = "base_opd", overrides: tuple[str, ...] = (), conf: str = PAPER, **given) -> dict:
    config = load_config(conf, run, "{expdir}", "{datadir}", overrides)
    return forecast(conf, config, Assumptions(**{"gpus": 24} | given))


@pytest.fixture(scope="module", autouse=True)
def counted_once():
    """Count each model once in this file: to build the paper's takes a second."""
    found, count = {}, plan._known

    def once(config, source):
        key = config.to_json_string()
        found[key] = found.get(key) or count(config, source)
        return replace(found[key], source=source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_known", once)
        yield


@pytest.fixture(scope="module")
def conf(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("conf") / "conf.yaml"
    path.write_text(CONF)
    return path


@pytest.mark.parametrize(("freeze", "ctc"), [([], 0.5), (["encoder"], 0.0)])
def test_weights_gradients_and_adamw_are_the_bytes_that_a_step_leaves(conf, tmp_path, freeze, ctc):
    data = write_corpus(tmp_path / "data")
    asked = [f"model.freeze={freeze}", f"train.ctc_weight={ctc}"]
    made = make_trainer(conf, "base", tmp_path, data, *asked)
    made.optimizer.zero_grad = lambda set_to_none: None  # as it is while the optimizer works
    made.take_step(iter(made.batches))
    params = list(made.student.parameters())
    vocab = made.student.hf.config.text_config.vocab_size
    said = planned("base", (*asked, f"model.sizes.text.vocab_size={vocab}"), str(conf), gpus=1)["memory_gib"]["items"]
    states = [s[name] for s in made.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    grads = [p.grad for p in params if p.grad is not None]
    for name, tensors in (("weights", params), ("gradients", grads), ("adamw", states)):
        assert said[name] * 2**30 == sum(t.nbytes for t in tensors), name


def test_a_trained_tokenizer_is_as_large_as_predicted(conf, tmp_path):
    data = write_corpus(tmp_path / "data")
    for run, asked in (("base", "tokenizer.vocab_size=24"), ("teacher", "tokenizer.vocab_size=262")):
        made = make_trainer(conf, run, tmp_path, data, asked)
        config = load_config(conf, run, "{expdir}", "{datadir}", [asked])
        found = student_of(str(conf), config).config.text_config.vocab_size
        assert found == made.student.hf.config.text_config.vocab_size, run


def saved_bytes(work, parameters) -> int:
    """Return the bytes of all that autograd keeps for backward, but for the parameters."""
    known, kept = {p.untyped_storage().data_ptr() for p in parameters}, {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in known)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_the_bytes_that_autograd_keeps(dtype):
    """In bfloat16 as under FSDP, whose weights are then bfloat16 themselves."""
    with torch.random.fork_rng():
        lm = build_fresh("arkasr", SIZES, student_tokenizer()).to(getattr(torch, dtype)).train()
    clips, ids = batch([80000] * 4), [[5] * 30] * 4
    audio = lm.encode_audio(clips.waveforms)
    outer = sum(len(lm.tokenizer.encode(t, add_special_tokens=False)) for t in lm.prompt_text("English"))
    layout = memory.ShardingLayout(1, 1, 4, getattr(torch, dtype).itemsize, 4)
    load = memory.BatchShape(4, 5.0, 4, 30 + outer - 10)  # this tokenizer's prompt is longer than the published one's
    heard, read = memory.activations(lm.hf.config, load, layout)
    assert heard == pytest.approx(saved_bytes(lambda: lm.encode_audio(clips.waveforms), lm.parameters()), rel=0.03)
    prompts = [p.detach() for p in lm.embed_prompts(audio, clips.languages)]
    found = saved_bytes(lambda: lm.transcript_states(prompts, ids), lm.parameters())
    assert read == pytest.approx(found, rel=0.06)


def test_a_cache_has_the_bytes_predicted():
    lm = student()
    text, rows = lm.hf.config.text_config, torch.zeros(3, 40, 24)
    read = lm.hf.model.language_model(inputs_embeds=rows, use_cache=True)
    cache = getattr(read, cache_argument(lm.hf.model.language_model))
    found = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    load = memory.BatchShape(3, 1.6, 3, 10)  # 20 audio tokens, 10 of the prompt, 10 written
    said = memory.kv_cache(lm.hf.config, load, 4)
    assert said * text.num_hidden_layers / (text.num_hidden_layers + 1) == found


@pytest.mark.parametrize(
    ("path", "total"),
    [
        ("openai/whisper-large-v3", 1_543_490_560),
        ("AutoArk-AI/ARK-ASR-0.6B", 1_152_556_800 - 1500 * 1280),  # the published files hold unused positions too
        ("Qwen/Qwen3-ASR-1.7B-hf", 2_038_052_480),
        ("Qwen/Qwen3-ASR-0.6B", 782_426_112),
    ],
)
def test_the_table_of_published_sizes_counts_as_published(path, total):
    config, source = model_sizes.read_outline(path)
    assert model_sizes.count(model_sizes.bare(config)).total == total and source == "the table of published sizes"


def test_the_paper_s_base_is_made_of_whisper_s_encoder_an_adapter_and_qwen():
    config = load_config(PAPER, "base_opd", "{expdir}", "{datadir}")
    counts = student_of(PAPER, config).counts
    hidden = 2 * 896
    assert counts.decoder == 494_032_768
    assert counts.encoder == 636_968_960 - 1500 * 1280  # Whisper's, without its positions
    assert counts.adapter == (5120 * hidden + hidden) + (hidden * 896 + 896)
    assert teacher_of(PAPER, config).counts.total == 2_038_052_480


def test_a_folder_is_read_and_a_run_of_the_same_conf_is_followed(conf, tmp_path):
    student().save(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    made = planned("base", (f"model.path={tmp_path / 'model'}", "train.ctc_weight=0"), str(conf))
    assert made["student"]["parameters"]["total"] == sum(p.numel() for p in student().parameters())
    assert made["student"]["source"] == "its folder"
    opd = planned("base_td_opd", conf=str(conf))
    assert opd["student"]["source"] == "run base_td: run base: model.sizes"
    assert opd["teacher"]["source"] == "run teacher: model.sizes"


def test_what_is_not_known_is_said_with_what_to_do(conf):
    for asked, sentence in (
        ("model.path=someone/model", "someone/model: no config.json here or in the Hub's cache"),
        ("model.path={expdir}/nothing/final", "no run is called 'nothing'"),
        ("model.path=Qwen/Qwen2.5-0.5B", "model_type 'qwen2', no recogniser"),
        ("fsdp.replicate=5", "fsdp.replicate=5: 24 ranks do not make 5 equal groups"),
        ("tokenizer.path=someone/words", "give model.sizes.text.vocab_size"),
    ):
        with pytest.raises(UserError, match=sentence):
            planned("base", (asked,), str(conf))


def items(*overrides: str, **given) -> dict[str, float]:
    return planned("base_opd", overrides, **given)["memory_gib"]["items"]


def test_sharding_and_recomputing_shrink_what_they_shrink():
    one, many, nodes = items(gpus=1), items(), items("fsdp.replicate=0")
    for name in ("weights", "gradients", "adamw"):
        assert one[name] == pytest.approx(24 * many[name]) == pytest.approx(8 * nodes[name])
    assert one["teacher's weights"] == pytest.approx(24 * items("fsdp.teacher=shard")["teacher's weights"])
    assert many["gathered for a rollout"] == one["weights"] / 2  # bfloat16
    assert items("fsdp.reshard_after_forward=false")["gathered in a pass"] == many["gathered for a rollout"]
    again = items("fsdp.activation_checkpointing=blocks")
    assert again["encoder activations"] < many["encoder activations"] / 8
    kept = planned("base_opd", ("fsdp.activation_checkpointing=blocks",))["memory_gib"]["peaks"]
    assert kept["backward"] < planned()["memory_gib"]["peaks"]["backward"] / 3


def test_peaks_are_sums_of_what_lives_at_the_same_time():
    of = {"weights": 1.0, "adamw": 2.0, "gradients": 1.0, "teacher's weights": 4.0, "kv cache": 5.0, "next logits": 1.0}
    of |= {"rollout's hearing": 3.0, "gathered for a rollout": 8.0, "teacher's logits": 6.0, "teacher at work": 7.0}
    of |= {"encoder activations": 20.0, "decoder activations": 10.0, "head table's gradient": 9.0}
    of |= {"gathered in a pass": 0.5, "optimizer at work": 1.0}
    assert memory.phases(of, accumulate=False) == {
        "rollout": 7 + 8 + 6 + 20,
        "teacher": 7 + 12 + 20,
        "student": 7 + 0.5 + 30 + 6,
        "backward": 7 + 0.5 + 9 + 30,
        "optimizer": 7 + 1 + 1,
    }
    assert memory.phases(of, accumulate=True)["rollout"] == 7 + 8 + 6 + 20 + 1


def test_time_follows_the_assumption_that_binds_it():
    base = planned()["seconds"]
    assert planned(mfu=0.8)["seconds"]["teacher"] == base["teacher"] / 2
    assert planned(mfu=0.8)["seconds"]["decode"] == base["decode"]
    assert planned(layer_ms=1.6)["seconds"]["decode"] == pytest.approx(2 * base["decode"])
    slow = planned(bandwidth=10.0)["seconds"]["decode"]
    assert planned(bandwidth=5.0)["seconds"]["decode"] == pytest.approx(2 * slow) and slow > base["decode"]
    assert planned(network=0.1)["seconds"]["student"] == pytest.approx(2 * 1_139_873_024 / 1e8, rel=1e-3)
    again = planned("base_opd", ("fsdp.activation_checkpointing=blocks",), network=1e6)["seconds"]
    assert again["backward"] == pytest.approx(1.5 * planned(network=1e6)["seconds"]["backward"], rel=1e-3)


def test_steps_hours_and_tokens_add_up():
    made = planned(hours=960.0, clip_seconds=12.0, full=1.0, tokens_per_second=4.0)
    assert made["step"]["clips"] == 24 * 40 and made["step"]["audio_seconds"] == 24 * 480
    assert made["step"]["tokens"] == 24 * 40 * 49
    whole = made["all"]
    assert whole["steps"] == 30000 and whole["steps_an_epoch"] == pytest.approx(960 / 3.2)
    assert whole["audio_hours"] == pytest.approx(96000) and whole["epochs"] == pytest.approx(100)
    assert whole["gpu_hours"] == pytest.approx(24 * whole["hours"])
    assert whole["hours"] == pytest.approx(30000 * sum(made["seconds"].values()) / 3600)
    assert planned()["all"]["epochs"] is None
    twice = planned("base_opd", ("train.accumulate=2",), full=1.0)
    assert twice["step"]["clips"] == 2 * made["step"]["clips"]


@pytest.mark.parametrize("run", ["base", "base_opd"])
def test_the_table_fits_80_columns_and_says_what_does_not_fit(run):
    for given, fits in (({}, True), ({"gpus": 1, "hours": 100000.0}, True), ({"gpu_memory": 12.0}, False)):
        lines = table(planned(run, **given))
        assert max(map(len, lines)) <= 80
        assert any("DOES NOT FIT" in line for line in lines) is not fits


def test_the_verb_prints_a_table_and_json(capsys, conf):
    words = ["plan", PAPER, "--run", "base_opd", "--gpus", "24", "--hours", "960", "fsdp.replicate=0"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("run base_opd (opd), 24 GPUs") and "epochs" in shown and "assumed: gpus 24" in shown
    assert cli.main([*words, "--json", "--mfu", "0.5"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["assumptions"]["mfu"] == 0.5 and made["memory_gib"]["items"]["weights"] > 0
    assert cli.main(["plan", str(conf), "--run", "base", "--gpus", "1", "model.path=no/where"]) == 2
    with contextlib.suppress(SystemExit):
        cli.main(["plan", PAPER, "--run", "base", "--gpus", "1", "--mfu", "none"])
    assert "a number above 0, not 'none'" in capsys.readouterr().err
