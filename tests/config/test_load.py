"""Configuration: layers and their precedence, refused values and their messages, and the resolved file."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from renamed_config import RenamedConfig, RenamedOptim

from arkasr.config.load import check_options, config_differences, dump_config, load_config, read_config, run_names
from arkasr.config.schema import Config, OptimConfig, PluginConfig
from arkasr.errors import UserError

ROOT = Path(__file__).parents[2]
CONFS = sorted(ROOT.glob("egs/*/conf/*.yaml"))


@dataclass
class Options:
    """Options that a plugin could declare."""

    rate: float = 1.0
    depth: int = 2
    label: str | None = None
    mode: Literal["fast", "exact"] = "fast"
    level: Literal[1, 2] = 1
    weights: list[float] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.depth < 0:
            raise ValueError("depth must not be negative")


def load(folder: Path, text: str, overrides=(), run="one") -> Config:
    path = folder / "conf.yaml"
    path.write_text(text if "runs:" in text else f"{text}\nruns: {{one: }}\n")
    return load_config(path, run, "EXP", "DATA", list(overrides))


def refusal(folder: Path, text: str, overrides=(), run="one") -> str:
    with pytest.raises(UserError) as caught:
        load(folder, text, overrides, run)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_load_config_merges_layers_by_precedence(tmp_path):
    base = "train: {steps: 1, keep: 1, accumulate: 1, threads: 1}\nruns: {one: {train: {threads: 3}}}\n"
    (tmp_path / "base.yaml").write_text(base)
    text = "base: base.yaml\ntrain: {keep: 2, accumulate: 2}\nruns: {one: {train: {accumulate: 3}}}\n"
    train = load(tmp_path, text, ["train.log_every=4"]).train
    assert (train.save_every, train.steps, train.keep) == (Config().train.save_every, 1, 2)
    assert (train.accumulate, train.threads, train.log_every) == (3, 3, 4)
    assert load(tmp_path, text, ["train.accumulate=5"]).train.accumulate == 5


def test_length_of_a_later_layer_replaces_that_of_earlier_layers(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {steps: 7}\nruns: {one: {train: {hours: 3}}}\n")
    text = "base: base.yaml\nruns: {one: , two: {train: {epochs: 2}}}\n"
    found = [load(tmp_path, text, overrides, run).train for run, overrides in (
        ("one", []), ("two", []), ("one", ["train.epochs=1"]), ("two", ["train.steps=5"]), ("one", ["train.hours=1"])
    )]  # fmt: skip
    lengths = [("hours", 3.0), ("epochs", 2.0), ("epochs", 1.0), ("steps", 5), ("hours", 1.0)]
    assert [train.length for train in found] == lengths
    assert [(t.steps > 0) + (t.epochs > 0) + (t.hours > 0) for t in found] == [1] * 5


def test_two_lengths_in_one_layer_are_refused(tmp_path):
    both = "train.steps and train.epochs exclude each other; keep one"
    assert both in refusal(tmp_path, "train: {steps: 7, epochs: 1}")
    assert f"runs.one.{both.replace(' train', ' runs.one.train')}" in refusal(
        tmp_path, "runs: {one: {train: {steps: 7, epochs: 1}}}"
    )
    assert both.replace("steps and train.epochs", "epochs and train.hours") in refusal(
        tmp_path, "", ["train.epochs=1", "train.hours=2"]
    )
    path = tmp_path / "written.yaml"
    path.write_text("train: {steps: 7, epochs: 1}\n")
    with pytest.raises(UserError, match="exactly one must be above 0, got steps 7 and epochs 1"):
        read_config(path)


def test_base_is_relative_to_file_and_one_level_deep(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "base.yaml").write_text("seed: 5\n")
    assert load(tmp_path / "inner", "base: ../base.yaml").seed == 5
    (tmp_path / "base.yaml").write_text("base: other.yaml\n")
    assert "cannot have a base itself" in refusal(tmp_path / "inner", "base: ../base.yaml")
    message = refusal(tmp_path, "base: nowhere.yaml")
    assert str(tmp_path / "conf.yaml") in message and "nowhere.yaml" in message


def test_run_names_lists_base_first_and_load_config_refuses_unknown_run(tmp_path):
    (tmp_path / "base.yaml").write_text("runs: {teacher: {}, base: {}}\n")
    message = refusal(tmp_path, "base: base.yaml\nruns: {opd: {}}\n", run="bse")
    assert message.endswith("conf.yaml: no run is called 'bse'; available: teacher, base, opd")
    assert run_names(tmp_path / "conf.yaml") == ["teacher", "base", "opd"]
    assert load(tmp_path, "runs: {opd: {}}", run="opd").run == "opd"


def test_placeholders_are_replaced_once_in_every_text_value(tmp_path):
    text = 'teacher: {options: {path: "{expdir}/teacher", more: ["{datadir}", {deep: "{expdir}"}], prompt: "{tongue}"}}'
    config = load(tmp_path, text, ["model.path={datadir}/{expdir}"])
    assert config.teacher.options == {"path": "EXP/teacher", "more": ["DATA", {"deep": "EXP"}], "prompt": "{tongue}"}
    assert (config.model.path, config.data.train) == ("DATA/EXP", "DATA/train.jsonl.gz")
    assert load_config(tmp_path / "conf.yaml", "one", "{datadir}", "D").teacher.options["path"] == "{datadir}/teacher"


def test_numbers_in_all_notations_are_read(tmp_path):
    text = "optim: {lr: 1e-4, weight_decay: 1e4, clip: .inf, betas: [0, .95], warmup_steps: 1_000}"
    optim = load(tmp_path, text).optim
    expected = OptimConfig(lr=1e-4, weight_decay=1e4, clip=float("inf"), betas=[0.0, 0.95], warmup_steps=1000)
    assert optim == expected and type(optim.betas[0]) is float
    assert load(tmp_path, "", ["optim.lr=1e-4", "optim.betas=[0.5, 1e-1]"]).optim.betas == [0.5, 0.1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trian: {steps: 3}", "unknown key trian; did you mean train?"),
        ("train: {stpes: 3}", "unknown key train.stpes; did you mean train.steps?"),
        ("lr: 3", "unknown key lr; did you mean optim.lr?"),
        ("distill: {zzz: 3}", "unknown key distill.zzz; valid here: top_k"),
        ("runs: {one: , x: {train: {stpe: 3}}}", "unknown key runs.x.train.stpe; did you mean runs.x.train.steps?"),
        ("runs: {one: 3}", "runs.one must be a mapping with the keys seed, rounding, objective,"),
        ("run: one", "run cannot be set here; use --run"),
        ("runs: {one: {run: two}}", "runs.one.run cannot be set here"),
        ("train: {steps: 1e4}", "train.steps must be a whole number, got 10000.0; write 10000"),
        ("train: {steps: '7'}", "train.steps must be a whole number, got '7'"),
        ("train: {steps: true}", "train.steps must be a whole number, got true"),
        ("train: {steps: }", "train.steps must be a whole number, got null"),
        ("train:", "train must be a mapping with the keys steps, epochs, hours, accumulate,"),
        ("train: 3", "got 3"),
        ("optim: {lr: fast}", "optim.lr must be a number, got 'fast'"),
        ("optim: {lr: true}", "optim.lr must be a number, got true"),
        ("optim: {lr: .nan}", "optim.lr must be a number, got '.nan'"),
        ("optim: {betas: [0.9, x]}", "optim.betas[1] must be a number, got 'x'"),
        ("optim: {betas: 0.9}", "optim.betas must be a list such as [a, b], got 0.9"),
        ("model: {path: 12}", "model.path must be text, got 12; put it in quotes"),
        ("model: {sizes: 3}", "model.sizes must be a mapping, got 3"),
        ("rollout: {top_p: 0}", "rollout.top_p must be from 1e-06 to 1, got 0.0"),
        ("rollout: {top_p: 1.5}", "rollout.top_p must be from 1e-06 to 1, got 1.5"),
        ("rollout: {temperature: -1}", "rollout.temperature must be 0, or from 0.01 to 100, got -1.0"),
        ("rollout: {temperature: 1e-40}", "rollout.temperature must be 0, or from 0.01 to 100, got 1e-40"),
        ("rollout: {temperature: .inf}", "rollout.temperature must be 0, or from 0.01 to 100, got inf"),
        ("rollout: {temperature: !!float .nan}", "rollout.temperature must be 0, or from 0.01 to 100, got nan"),
        ("rollout: {temperature: 1e39}", "rollout.temperature must be 0, or from 0.01 to 100, got 1e+39"),
        ("rollout: {max_new_tokens: 0}", "rollout.max_new_tokens must be from 1 to 100000, got 0"),
        ("decode: {max_new_tokens: -3}", "decode.max_new_tokens must be from 1 to 100000, got -3"),
        ("optim: {betas: [0.9, !!float .nan]}", "optim.betas must be finite, got [0.9, nan]"),
        ("optim: {clip: -.inf}", "optim.clip must be finite, got -inf"),
        ("rollout: {samples: 2}", "rollout.samples must be 1, or up to 1024 with a temperature above 0, got 2"),
        (
            "rollout: {samples: 0, temperature: 1}",
            "rollout.samples must be 1, or up to 1024 with a temperature above 0, got 0",
        ),
        ("rollout: {looping: skp}", "rollout.looping must be one of 'score', 'skip', 'reference', got 'skp'"),
        (
            "distill: {mix: {tacher: 1}}",
            "distill.mix.tacher is not a source of transcripts; valid here: student, teacher, reference",
        ),
        (
            "distill: {mix: {student: 0}}",
            "mix must be finite weights of at least 0 with a finite sum above 0, got {'student': 0.0",
        ),
        ("distill: {mix: {teacher: -1}}", "mix must be finite weights of at least 0"),
        ("distill: {mix: {teacher: .inf}}", "mix must be finite weights of at least 0"),
        ("distill: {mix: {teacher: a}}", "distill.mix.teacher must be a number, got 'a'"),
        ("distill: {top_k: 0}", "distill.top_k must be at least 1, got 0"),
        ("distill: {diagnose_every: -1}", "distill.diagnose_every must be at least 0, got -1"),
        ("teacher_data: {max_error: 30}", "teacher_data.max_error must be from 0 to 1, got 30.0"),
        ("objective: obd", "objective must be one of 'sft', 'opd', 'none', got 'obd'; did you mean opd?"),
    ],
)
def test_load_config_refusal_names_file_key_and_fix(tmp_path, text, expected):
    message = refusal(tmp_path, text)
    assert message.startswith(f"{tmp_path / 'conf.yaml'}: ") and expected in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train:\n  steps: 1\n  keep: 2\n  steps: 3", "line 4: train.steps is set twice (first on line 2); keep one"),
        ("seed: 1\nseed: 1\n", "line 2: seed is set twice"),
        ("model: {sizes: {text: [{a: 1, a: 2}]}}", "model.sizes.text[0].a is set twice"),
        ("train: {steps: [}", "line 1: not valid YAML"),
        ("train:\n\tsteps: 3\n", "line 2: not valid YAML"),
        ("loss: {options: {1: a}}", "line 1: a key must be text, got 1; put it in quotes"),
        ("seed: !!python/object:os.system 1", "unknown tag tag:yaml.org,2002:python/object:os.system"),
        ("seed: !!int x", "not valid YAML"),
        ("&a seed: *b", "not valid YAML"),
        ("loss: &a {options: *a}", "not valid YAML"),
        ("loss: \x01", "not valid YAML"),
        ("- seed", "must be a mapping (`key: value` lines), got a list"),
    ],
)
def test_load_config_names_file_and_line_of_yaml_error(tmp_path, text, expected):
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(path, "one", "E", "D", [])
    assert str(path) in str(caught.value) and expected in str(caught.value) and "\n" not in str(caught.value)


def test_load_config_names_base_file_for_error_in_base(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {stpes: 1}\n")
    assert refusal(tmp_path, "base: base.yaml").startswith(f"{tmp_path / 'base.yaml'}: unknown key train.stpes")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.stpes=3"], "unknown key train.stpes; did you mean train.steps?"),
        (["train.steps"], "expected section.key=value, got 'train.steps'"),
        (["=3"], "expected section.key=value, got '=3'"),
        (["train..steps=3"], "expected section.key=value, got 'train..steps=3'"),
        (["train.steps=x"], "train.steps must be a whole number, got 'x'"),
        (["train.steps="], "train.steps must be a whole number, got null"),
        (["train.steps=[1"], "not valid YAML"),
        (["train.steps=1", "train.steps=1"], "train.steps is set twice; keep one"),
        (["train=1", "train.steps=1"], "train.steps is set twice; keep one"),
        (["train.steps=1", "train={keep: 1}"], "train is set twice; keep one"),
        (["train.steps.more=1"], "train.steps must be a whole number, got a mapping"),
        (["run=x"], "run cannot be set here"),
        (["runs.one.seed=1"], "unknown key runs"),
    ],
)
def test_load_config_refuses_wrong_overrides(tmp_path, overrides, expected):
    message = refusal(tmp_path, "", overrides)
    assert message.startswith("command line") and expected in message


@pytest.mark.parametrize("address", ["https://user:hunter2@host", "http://host/?api_key=hunter2"])
def test_load_config_refuses_passwords_in_addresses_without_showing_them(tmp_path, address):
    message = refusal(tmp_path, "", [f"teacher.options.url={address}"])
    assert "teacher.options.url" in message
    assert "holds a password" in message
    assert "***" in message
    assert "hunter2" not in message


def test_text_overrides_are_not_parsed_as_yaml(tmp_path):
    config = load(tmp_path, "", ["model.path=12", "data.train=a: b=c", "data.dev=", "loss.options.rate=1e-1"])
    assert (config.model.path, config.data.train, config.data.dev) == ("12", "a: b=c", "")
    assert config.loss.options == {"rate": 0.1}


def test_options_are_dropped_when_plugin_name_changes(tmp_path):
    text = "loss: {name: a, options: {rate: 1, deep: {x: 1}}}\nmodel: {type: arkasr, sizes: {width: 1}}\n"
    text += "runs:\n  one:\n  other: {loss: {name: b, options: {hot: 1}}, model: {type: qwen3_asr}}\n"
    assert load(tmp_path, text, ["loss.options.deep.y=2"]).loss.options == {"rate": 1, "deep": {"x": 1, "y": 2}}
    assert load(tmp_path, text, ["loss.name=a"]).loss.options == {"rate": 1, "deep": {"x": 1}}
    other = load(tmp_path, text, run="other")
    assert other.loss == PluginConfig("b", {"hot": 1}) and other.model.sizes == {}
    assert load(tmp_path, text, ["loss.options.z=1", "loss.name=c"]).loss == PluginConfig("c", {"z": 1})


SIZES = "{audio: {d: 1}, text: {w: 2}, initializer_range: 0.1}"


def test_null_removes_a_size_of_an_earlier_layer(tmp_path):
    """As with `base: mini.yaml`, whose `sizes.audio` does not fit beside `model.encoder`."""
    (tmp_path / "mini.yaml").write_text(f"model: {{sizes: {SIZES}}}\nruns: {{one: , two: }}\n")
    text = "base: mini.yaml\nmodel: {encoder: whisper, sizes: {audio: null}}\n"
    model = load(tmp_path, text).model
    assert model.encoder == "whisper" and model.sizes == {"text": {"w": 2}, "initializer_range": 0.1}
    left = {"text": {"w": 2}, "initializer_range": 0.1}
    for null in ("null", "~", ""):
        assert load(tmp_path, "base: mini.yaml", [f"model.sizes.audio={null}"]).model.sizes == left
    overlay = "base: mini.yaml\nruns: {one: {model: {sizes: {audio: ~}}}}"
    assert load(tmp_path, overlay).model.sizes == left
    assert load(tmp_path, text, ["model.sizes.text.w=null", "model.sizes.text.v=1"]).model.sizes["text"] == {"v": 1}
    restored = load(tmp_path, text, ["model.sizes.audio.d=3"]).model.sizes
    assert restored["audio"] == {"d": 3}


def test_null_removes_sizes_of_the_recipe_and_the_encoder_takes_its_own(tmp_path):
    (tmp_path / "own.yaml").write_text(
        f"base: {ROOT / 'egs/conf/mini.yaml'}\nmodel: {{encoder: whisper, sizes: {{audio: null}}}}\n"
    )
    config = load_config(tmp_path / "own.yaml", "base", "E", "D")
    assert "audio" not in config.model.sizes and config.model.sizes["text"]["hidden_size"] == 96
    dump_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", ["''", "a/b", "..", "a b", ".a", "-a", '"a\\nb"'])
def test_name_of_a_run_that_cannot_be_a_folder_is_refused(tmp_path, name):
    message = refusal(tmp_path, f"runs: {{one: , {name}: {{}}}}")
    assert "is not a name of a run; use letters, digits" in message


def test_messages_suggest_no_key_that_a_file_cannot_set(tmp_path):
    for text in ("runs: {one: 3}", "zzz: 1", "rum: 1"):
        assert " run," not in refusal(tmp_path, text) and "mean run?" not in refusal(tmp_path, text)


def test_strange_keys_are_quoted_and_cut(tmp_path):
    assert r"unknown key 'a\x1b[31m'" in refusal(tmp_path, '"a\\e[31m": 1')
    assert len(refusal(tmp_path, f"{'k' * 5000}: 1")) < 1000
    assert len(refusal(tmp_path, f"model: {{dtype: {'k' * 5000}}}")) < 1000


def test_load_config_does_not_share_values_between_calls(tmp_path):
    load(tmp_path, "optim: {betas: [0.1, 0.2]}\nloss: {options: {rate: 3}}").loss.options["more"] = 1
    assert load(tmp_path, "").loss.options == {} and load(tmp_path, "").optim.betas == Config().optim.betas


def test_dump_config_reads_back_equal(tmp_path):
    text = "seed: 3\nmodel: {sizes: {a: {b: [1, 2.5, null, 'no', '1e-4', '7', '', true, 字, 'a: b']}}}"
    config = load(tmp_path, text, ["optim.clip=.inf"])
    dump_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("config.yaml")] == ["config.yaml"]


def test_read_config_does_not_merge_options_with_defaults(tmp_path):
    (tmp_path / "config.yaml").write_text(f"loss: {{name: {Config().loss.name}, options: {{a: 1}}}}\n")
    assert read_config(tmp_path / "config.yaml").loss == PluginConfig(Config().loss.name, {"a": 1})


def test_read_config_refuses_empty_and_torn_files(tmp_path):
    path = tmp_path / "config.yaml"
    for content in (b"", b"\n", b"\0" * 512):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"^{re.escape(str(path))}: (is empty; restore it|not valid YAML)"):
            read_config(path)


def test_read_config_refuses_file_with_runs(tmp_path):
    load(tmp_path, "seed: 1")
    with pytest.raises(UserError, match="unknown key runs"):
        read_config(tmp_path / "conf.yaml")


def test_check_options_returns_instance():
    options = {"rate": 2, "label": None, "mode": "exact", "weights": [1, 0.5], "extra": {"a": [None]}}
    expected = Options(2.0, 2, None, "exact", 1, [1.0, 0.5], {"a": [None]})
    assert check_options(Options, options, "here") == expected
    assert check_options(Options, {}, "here") == Options()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rte": 1}, "here: unknown key rte; did you mean rate?"),
        ({"rate": None}, "here: rate must be a number, got null"),
        ({"depth": 1.5}, "here: depth must be a whole number, got 1.5"),
        ({"depth": True}, "here: depth must be a whole number, got true"),
        ({"label": 3}, "here: label must be text, got 3; put it in quotes"),
        ({"mode": "fats"}, "here: mode must be one of 'fast', 'exact', got 'fats'; did you mean fast?"),
        ({"level": True}, "here: level must be one of 1, 2, got true"),
        ({"extra": {"a": {1, 2}}}, "here: extra.a must be a plain value"),
        ({"depth": -1}, "here: depth must not be negative"),
    ],
)
def test_check_options_refuses_wrong_options(options, expected):
    with pytest.raises(UserError) as caught:
        check_options(Options, options, "here")
    assert str(caught.value).startswith(expected)


def test_check_options_refuses_missing_option_without_default():
    @dataclass
    class Needy:
        path: str

    with pytest.raises(UserError, match="here: path is missing and has no default; set it"):
        check_options(Needy, {}, "here")


def test_check_options_raises_type_error_for_unsupported_type():
    @dataclass
    class Odd:
        when: complex = 1j

    with pytest.raises(TypeError, match="a schema cannot declare the type"):
        check_options(Odd, {"when": 1}, "here")


def test_override_of_renamed_key_names_new_name(tmp_path, monkeypatch):
    monkeypatch.setattr("arkasr.config.load.Config", RenamedConfig)
    assert load(tmp_path, "", ["optim.peak=3"]).optim.peak == 3.0
    assert refusal(tmp_path, "", ["optim.max_lr=3"]) == "command line: optim.max_lr is now called optim.peak"


def test_check_options_names_new_name_of_renamed_option():
    with pytest.raises(UserError) as caught:
        check_options(RenamedOptim, {"max_lr": 2.0}, "options of loss 'x'")
    assert str(caught.value) == "options of loss 'x': max_lr is now called peak"


def test_config_differences_lists_dotted_keys():
    a = Config(loss=PluginConfig("x", {"a": 1, "b": {"c": 1}}))
    b = Config(seed=2, loss=PluginConfig("x", {"b": {"c": 2}, "d": 1}))
    b.train.steps, b.train.keep = 9, 9
    found = ["seed", "train.steps", "train.keep", "loss.options.a", "loss.options.b.c", "loss.options.d"]
    assert config_differences(a, b) == found
    assert config_differences(a, b, ["train.steps", "loss", "see"]) == ["seed", "train.keep"]
    assert config_differences(a, a) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_configuration_loads(path, tmp_path):
    names = run_names(path)
    assert names
    for name in names:
        config = load_config(path, name, "EXP", "DATA", [])
        dump_config(config, tmp_path / "config.yaml")
        assert read_config(tmp_path / "config.yaml") == config
        assert "{expdir}" not in str(asdict(config)) and "{datadir}" not in str(asdict(config))


def test_recipe_configurations_exist():
    assert CONFS
