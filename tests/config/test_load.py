"""Layers and their precedence, what the strict loader refuses and says, and the resolved file that reads back equal."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, is_dataclass
from math import inf, nan
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import student

from arkasr.config.load import check_options, config_differences, dump_config, load_config, read_config, run_names
from arkasr.config.schema import COLDEST, WARMEST, Config, OptimConfig, PluginConfig, RolloutConfig
from arkasr.config.validate import kinds_of
from arkasr.config.yaml_io import parse_yaml, read_yaml, to_yaml
from arkasr.errors import UserError
from arkasr.model.generation import generate

ROOT = Path(__file__).parents[2]
CONFS = sorted(ROOT.glob("egs/*/conf/*.yaml"))


@dataclass
class Options:
    """What a plugin might declare."""

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


def test_precedence(tmp_path):
    base = "train: {steps: 1, keep: 1, accumulate: 1, threads: 1}\nruns: {one: {train: {threads: 3}}}\n"
    (tmp_path / "base.yaml").write_text(base)
    text = "base: base.yaml\ntrain: {keep: 2, accumulate: 2}\nruns: {one: {train: {accumulate: 3}}}\n"
    train = load(tmp_path, text, ["train.log_every=4"]).train
    assert (train.save_every, train.steps, train.keep) == (Config().train.save_every, 1, 2)
    assert (train.accumulate, train.threads, train.log_every) == (3, 3, 4)
    assert load(tmp_path, text, ["train.accumulate=5"]).train.accumulate == 5


def test_base_is_looked_for_beside_the_conf_and_one_level_deep(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "base.yaml").write_text("seed: 5\n")
    assert load(tmp_path / "inner", "base: ../base.yaml").seed == 5
    (tmp_path / "base.yaml").write_text("base: other.yaml\n")
    assert "may not have a base of its own" in refusal(tmp_path / "inner", "base: ../base.yaml")
    message = refusal(tmp_path, "base: nowhere.yaml")
    assert str(tmp_path / "conf.yaml") in message and "nowhere.yaml" in message


def test_run_names_and_unknown_run(tmp_path):
    (tmp_path / "base.yaml").write_text("runs: {teacher: {}, base: {}}\n")
    message = refusal(tmp_path, "base: base.yaml\nruns: {opd: {}}\n", run="bse")
    assert message.endswith("conf.yaml: no run is called 'bse'; available: teacher, base, opd")
    assert run_names(tmp_path / "conf.yaml") == ["teacher", "base", "opd"]
    assert load(tmp_path, "runs: {opd: {}}", run="opd").run == "opd"


def test_folders_replace_placeholders_everywhere_once(tmp_path):
    text = 'teacher: {options: {path: "{expdir}/teacher", more: ["{datadir}", {deep: "{expdir}"}], prompt: "{tongue}"}}'
    config = load(tmp_path, text, ["model.path={datadir}/{expdir}"])
    assert config.teacher.options == {"path": "EXP/teacher", "more": ["DATA", {"deep": "EXP"}], "prompt": "{tongue}"}
    assert (config.model.path, config.data.train) == ("DATA/EXP", "DATA/train.jsonl.gz")
    assert load_config(tmp_path / "conf.yaml", "one", "{datadir}", "D").teacher.options["path"] == "{datadir}/teacher"


def test_numbers_as_people_write_them(tmp_path):
    text = "optim: {lr: 1e-4, weight_decay: 1e4, clip: .inf, betas: [0, .95], warmup_steps: 1_000}"
    optim = load(tmp_path, text).optim
    expected = OptimConfig(lr=1e-4, weight_decay=1e4, clip=float("inf"), betas=[0.0, 0.95], warmup_steps=1000)
    assert optim == expected and type(optim.betas[0]) is float
    assert load(tmp_path, "", ["optim.lr=1e-4", "optim.betas=[0.5, 1e-1]"]).optim.betas == [0.5, 0.1]


def test_only_true_and_false_are_booleans():
    text = "[no, yes, on, off, True, y, 010, 1:30, 2026-01-01, 0x10, ~, null, true, false, 7, .5, 1., 1e3]"
    words = ["no", "yes", "on", "off", "True", "y", "010", "1:30", "2026-01-01", "0x10"]
    assert parse_yaml(text, "here") == [*words, None, None, True, False, 7, 0.5, 1.0, 1000.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trian: {steps: 3}", "unknown key trian; did you mean train?"),
        ("train: {stpes: 3}", "unknown key train.stpes; did you mean train.steps?"),
        ("lr: 3", "unknown key lr; did you mean optim.lr?"),
        ("distill: {zzz: 3}", "unknown key distill.zzz; valid here: top_k"),
        ("runs: {one: , x: {train: {stpe: 3}}}", "unknown key runs.x.train.stpe; did you mean runs.x.train.steps?"),
        ("runs: {one: 3}", "runs.one must hold keys of its own"),
        ("run: one", "run may not be set here; --run names the run"),
        ("runs: {one: {run: two}}", "runs.one.run may not be set here"),
        ("train: {steps: 1e4}", "train.steps must be a whole number, not 10000.0; write 10000"),
        ("train: {steps: '7'}", "train.steps must be a whole number, not '7'"),
        ("train: {steps: true}", "train.steps must be a whole number, not true"),
        ("train: {steps: }", "train.steps must be a whole number, not null"),
        ("train:", "train must hold keys of its own (steps,"),
        ("train: 3", "not 3"),
        ("optim: {lr: fast}", "optim.lr must be a number, not 'fast'"),
        ("optim: {lr: true}", "optim.lr must be a number, not true"),
        ("optim: {lr: .nan}", "optim.lr must be a number, not '.nan'"),
        ("optim: {betas: [0.9, x]}", "optim.betas[1] must be a number, not 'x'"),
        ("optim: {betas: 0.9}", "optim.betas must be a list such as [a, b], not 0.9"),
        ("model: {path: 12}", "model.path must be text, not 12; put it in quotes"),
        ("model: {sizes: 3}", "model.sizes must hold keys of its own, not 3"),
        ("rollout: {top_p: 0}", "rollout: top_p=0.0: must be above 0 and at most 1"),
        ("rollout: {top_p: 1.5}", "rollout: top_p=1.5: must be above 0"),
        ("rollout: {temperature: -1}", "rollout: temperature=-1.0: must be 0, or from 0.01 to 100"),
        ("rollout: {temperature: 1e-40}", "rollout: temperature=1e-40: must be 0, or from 0.01 to 100"),
        ("rollout: {temperature: .inf}", "rollout: temperature=inf: must be 0, or from"),
        ("rollout: {temperature: !!float .nan}", "rollout: temperature=nan: must be 0, or from"),
        ("rollout: {temperature: 1e39}", "rollout: temperature=1e+39: must be 0, or from"),
        ("rollout: {max_new_tokens: 0}", "rollout: max_new_tokens=0: at least 1"),
        ("decode: {max_new_tokens: -3}", "decode: max_new_tokens=-3: at least 1"),
        ("optim: {betas: [0.9, !!float .nan]}", "optim: betas=[0.9, nan]: must be finite"),
        ("optim: {clip: -.inf}", "optim: clip=-inf: must be finite"),
        ("rollout: {samples: 2}", "rollout: samples=2: at least 1, and more only with a temperature above 0"),
        ("rollout: {samples: 0, temperature: 1}", "rollout: samples=0: at least 1"),
        ("rollout: {looping: skp}", "rollout.looping must be one of 'score', 'skip', 'reference', not 'skp'"),
        (
            "distill: {mix: {tacher: 1}}",
            "distill: mix.tacher: no such source; choose among: student, teacher, reference",
        ),
        ("distill: {mix: {student: 0}}", "weights must not be below 0, and one at least must be above"),
        ("distill: {mix: {teacher: -1}}", "weights must not be below 0"),
        ("distill: {mix: {teacher: .inf}}", "weights must not be below 0"),
        ("distill: {mix: {teacher: a}}", "distill.mix.teacher must be a number, not 'a'"),
        ("distill: {top_k: 0}", "distill: top_k=0, diagnose_every=10: at least 1, and at least 0"),
        ("distill: {diagnose_every: -1}", "diagnose_every=-1: at least 1, and at least 0"),
        ("teacher_data: {max_error: 30}", "teacher_data: max_error=30.0: must be at least 0 and at most 1"),
        ("objective: obd", "objective must be one of 'sft', 'opd', not 'obd'; did you mean opd?"),
    ],
)
def test_refusals_name_file_key_and_mend(tmp_path, text, said):
    message = refusal(tmp_path, text)
    assert message.startswith(f"{tmp_path / 'conf.yaml'}: ") and said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train:\n  steps: 1\n  keep: 2\n  steps: 3", "line 4: train.steps is given twice (first on line 2); keep one"),
        ("seed: 1\nseed: 1\n", "line 2: seed is given twice"),
        ("model: {sizes: {text: [{a: 1, a: 2}]}}", "model.sizes.text[0].a is given twice"),
        ("train: {steps: [}", "line 1: not valid YAML"),
        ("train:\n\tsteps: 3\n", "line 2: not valid YAML"),
        ("loss: {options: {1: a}}", "line 1: a key must be text, not 1; put it in quotes"),
        ("seed: !!python/object:os.system 1", "the tag tag:yaml.org,2002:python/object:os.system is not known"),
        ("seed: !!int x", "not valid YAML"),
        ("&a seed: *b", "not valid YAML"),
        ("loss: &a {options: *a}", "not valid YAML"),
        ("loss: \x01", "not valid YAML"),
        ("- seed", "must hold `key: value` lines, not a list"),
    ],
)
def test_yaml_mistakes_name_file_and_line(tmp_path, text, said):
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(path, "one", "E", "D", [])
    assert str(path) in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


def test_a_mistake_in_the_base_names_the_base(tmp_path):
    (tmp_path / "base.yaml").write_text("train: {stpes: 1}\n")
    assert refusal(tmp_path, "base: base.yaml").startswith(f"{tmp_path / 'base.yaml'}: unknown key train.stpes")


def test_unreadable_files(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"run: \xe9")
    for path, said in (
        (tmp_path / "none.yaml", "cannot be read"),
        (tmp_path, "cannot be read"),
        (tmp_path / "latin.yaml", "not UTF-8"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            read_yaml(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.stpes=3"], "unknown key train.stpes; did you mean train.steps?"),
        (["train.steps"], "'train.steps' is not of the form section.key=value"),
        (["=3"], "'=3' is not of the form section.key=value"),
        (["train..steps=3"], "'train..steps=3' is not of the form"),
        (["train.steps=x"], "train.steps must be a whole number, not 'x'"),
        (["train.steps="], "train.steps must be a whole number, not null"),
        (["train.steps=[1"], "not valid YAML"),
        (["train.steps=1", "train.steps=1"], "train.steps is given twice; keep one"),
        (["train=1", "train.steps=1"], "train.steps is given twice; keep one"),
        (["train.steps=1", "train={keep: 1}"], "train is given twice; keep one"),
        (["train.steps.more=1"], "train.steps must be a whole number, not a mapping"),
        (["run=x"], "run may not be set here"),
        (["runs.one.seed=1"], "unknown key runs"),
    ],
)
def test_override_refusals(tmp_path, overrides, said):
    message = refusal(tmp_path, "", overrides)
    assert message.startswith("command line") and said in message


def test_overrides_of_text_are_taken_as_they_stand(tmp_path):
    config = load(tmp_path, "", ["model.path=12", "data.train=a: b=c", "data.dev=", "loss.options.rate=1e-1"])
    assert (config.model.path, config.data.train, config.data.dev) == ("12", "a: b=c", "")
    assert config.loss.options == {"rate": 0.1}


def test_options_of_another_plugin_do_not_carry_over(tmp_path):
    text = "loss: {name: a, options: {rate: 1, deep: {x: 1}}}\nmodel: {type: arkasr, sizes: {width: 1}}\n"
    text += "runs:\n  one:\n  other: {loss: {name: b, options: {hot: 1}}, model: {type: qwen3_asr}}\n"
    assert load(tmp_path, text, ["loss.options.deep.y=2"]).loss.options == {"rate": 1, "deep": {"x": 1, "y": 2}}
    assert load(tmp_path, text, ["loss.name=a"]).loss.options == {"rate": 1, "deep": {"x": 1}}
    other = load(tmp_path, text, run="other")
    assert other.loss == PluginConfig("b", {"hot": 1}) and other.model.sizes == {}
    assert load(tmp_path, text, ["loss.options.z=1", "loss.name=c"]).loss == PluginConfig("c", {"z": 1})


def test_loading_leaves_no_trace_in_the_next(tmp_path):
    load(tmp_path, "optim: {betas: [0.1, 0.2]}\nloss: {options: {rate: 3}}").loss.options["more"] = 1
    assert load(tmp_path, "").loss.options == {} and load(tmp_path, "").optim.betas == Config().optim.betas


def test_dump_reads_back_equal(tmp_path):
    text = "seed: 3\nmodel: {sizes: {a: {b: [1, 2.5, null, 'no', '1e-4', '7', '', true, 字, 'a: b']}}}"
    config = load(tmp_path, text, ["optim.clip=.inf"])
    dump_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("config.yaml")] == ["config.yaml"]


def test_read_takes_options_as_written_not_on_top_of_defaults(tmp_path):
    (tmp_path / "config.yaml").write_text(f"loss: {{name: {Config().loss.name}, options: {{a: 1}}}}\n")
    assert read_config(tmp_path / "config.yaml").loss == PluginConfig(Config().loss.name, {"a": 1})


ENDLESS = {"data.max_seconds", "data.max_clip_seconds", "optim.clip", "decode.max_seconds"}  # limits: inf is none


def test_no_number_of_the_schema_is_nan_and_only_limits_are_infinite():
    found = set()
    for section, kind in kinds_of(Config).items():
        for key in (key for key, hint in kinds_of(kind).items() if hint is float) if is_dataclass(kind) else ():
            found.add(f"{section}.{key}")
            for value in (nan,) if f"{section}.{key}" in ENDLESS else (nan, inf):
                with pytest.raises(ValueError, match=f"^{key}={value}: "):
                    kind(**{key: value})
    assert found > ENDLESS and len(found) > 15
    for key in ENDLESS:
        section, _, name = key.partition(".")
        assert getattr(kinds_of(Config)[section](**{name: inf}), name) == inf


@pytest.mark.parametrize("temperature", [0.0, COLDEST, 1.0, WARMEST])
@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_at_every_temperature_that_is_taken_tokens_can_be_drawn(temperature, top_p):
    config, lm = RolloutConfig(temperature=temperature, top_p=top_p), student(3)
    with torch.no_grad():
        lm.head.mul_(1e3)
        prompts = [torch.randn(5, lm.head.shape[1], generator=torch.Generator().manual_seed(0))]
        states = lm.hf.model.language_model(inputs_embeds=prompts[0][None]).last_hidden_state
    assert (states @ lm.head.T).abs().max() > 1e3 and lm.blocked.any()
    made = generate(lm, prompts, [9], temperature=config.temperature, top_p=config.top_p)
    assert not lm.blocked[made.ids[0]].any()


def test_read_refuses_a_conf_that_is_not_resolved(tmp_path):
    load(tmp_path, "seed: 1")
    with pytest.raises(UserError, match="unknown key runs"):
        read_config(tmp_path / "conf.yaml")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_any_plain_values_survive_yaml(values):
    back = parse_yaml(to_yaml(values), "here")
    assert back == values and repr(back) == repr(values)


def test_check_options():
    options = {"rate": 2, "label": None, "mode": "exact", "weights": [1, 0.5], "extra": {"a": [None]}}
    made = Options(2.0, 2, None, "exact", 1, [1.0, 0.5], {"a": [None]})
    assert check_options(Options, options, "here") == made
    assert check_options(Options, {}, "here") == Options()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rte": 1}, "here: unknown key rte; did you mean rate?"),
        ({"rate": None}, "here: rate must be a number, not null"),
        ({"depth": 1.5}, "here: depth must be a whole number, not 1.5"),
        ({"depth": True}, "here: depth must be a whole number, not true"),
        ({"label": 3}, "here: label must be text, not 3; put it in quotes"),
        ({"mode": "fats"}, "here: mode must be one of 'fast', 'exact', not 'fats'; did you mean fast?"),
        ({"level": True}, "here: level must be one of 1, 2, not true"),
        ({"extra": {"a": {1, 2}}}, "here: extra.a must be a plain value"),
        ({"depth": -1}, "here: depth must not be negative"),
    ],
)
def test_check_options_is_as_strict(options, said):
    with pytest.raises(UserError) as caught:
        check_options(Options, options, "here")
    assert str(caught.value).startswith(said)


def test_options_without_default_are_asked_for():
    @dataclass
    class Needy:
        path: str

    with pytest.raises(UserError, match="here: path is missing and has no default; set it"):
        check_options(Needy, {}, "here")


def test_a_schema_of_an_unknown_type_is_the_programmers_error():
    @dataclass
    class Odd:
        when: complex = 1j

    with pytest.raises(TypeError, match="cannot stand in a schema"):
        check_options(Odd, {"when": 1}, "here")


def test_differences():
    a = Config(loss=PluginConfig("x", {"a": 1, "b": {"c": 1}}))
    b = Config(seed=2, loss=PluginConfig("x", {"b": {"c": 2}, "d": 1}))
    b.train.steps, b.train.keep = 9, 9
    found = ["seed", "train.steps", "train.keep", "loss.options.a", "loss.options.b.c", "loss.options.d"]
    assert config_differences(a, b) == found
    assert config_differences(a, b, ["train.steps", "loss", "see"]) == ["seed", "train.keep"]
    assert config_differences(a, a) == []


@pytest.mark.parametrize("path", CONFS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_conf_of_every_recipe_loads(path, tmp_path):
    names = run_names(path)
    assert names
    for name in names:
        config = load_config(path, name, "EXP", "DATA", [])
        dump_config(config, tmp_path / "config.yaml")
        assert read_config(tmp_path / "config.yaml") == config
        assert "{expdir}" not in str(asdict(config)) and "{datadir}" not in str(asdict(config))


def test_there_are_confs():
    assert CONFS
