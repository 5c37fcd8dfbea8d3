"""Limits of the numbers in the configuration."""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from math import inf, nan
from pathlib import Path

import pytest
import torch
from tiny import student

from arkasr.config.load import load_config
from arkasr.config.schema import COLDEST, WARMEST, Config, DistillConfig, RolloutConfig
from arkasr.config.validate import kinds_of
from arkasr.config.yaml_io import parse_yaml
from arkasr.errors import UserError
from arkasr.model.generation import generate
from arkasr.plugins import registry
from arkasr.plugins.loader import load_plugins
from arkasr.plugins.registry import BUILTINS

CONFIG_PAGE = (Path(__file__).parents[2] / "docs" / "config.md").read_text(encoding="utf-8")
UNLIMITED = {"data.max_seconds", "data.max_clip_seconds", "optim.clip", "decode.max_seconds"}  # inf: no limit


def test_schema_refuses_nan_and_infinity_except_for_limits():
    found = set()
    for section, kind in kinds_of(Config).items():
        for key in (key for key, hint in kinds_of(kind).items() if hint is float) if is_dataclass(kind) else ():
            found.add(f"{section}.{key}")
            for value in (nan,) if f"{section}.{key}" in UNLIMITED else (nan, inf):
                with pytest.raises(ValueError, match=f"^{key} must be .*, got {value}$"):
                    kind(**{key: value})
    assert found > UNLIMITED and len(found) > 15
    for key in UNLIMITED:
        section, _, name = key.partition(".")
        assert getattr(kinds_of(Config)[section](**{name: inf}), name) == inf


@pytest.mark.parametrize("temperature", [0.0, COLDEST, 1.0, WARMEST])
@pytest.mark.parametrize("top_p", [0.9, 1.0])
def test_generate_draws_allowed_tokens_at_limits_of_temperature(temperature, top_p):
    config, lm = RolloutConfig(temperature=temperature, top_p=top_p), student(3)
    with torch.no_grad():
        lm.head.mul_(1e3)
        prompts = [torch.randn(5, lm.head.shape[1], generator=torch.Generator().manual_seed(0))]
        states = lm.hf.model.language_model(inputs_embeds=prompts[0][None]).last_hidden_state
    assert (states @ lm.head.T).abs().max() > 1e3 and lm.blocked.any()
    generation = generate(lm, prompts, [9], temperature=config.temperature, top_p=config.top_p)
    assert not lm.blocked[generation.ids[0]].any()


EXAMPLES = ("-1", "0", ".nan", "nan", ".inf", "1e400", "1" + "0" * 400, "1e300", "x", "true", "null", "[]", "''")


def numeric_keys(kind=Config, prefix=""):
    """Yield the dotted key and the type of every number in the schema: scalars, items of lists, values of mappings."""
    for key, hint in kinds_of(kind).items():
        if is_dataclass(hint):
            yield from numeric_keys(hint, f"{prefix}{key}.")
        elif hint in (int, float, list[float], dict[str, float], dict[str, int]):
            yield f"{prefix}{key}", hint


def written(key, hint, text):
    name = "teacher" if key == "distill.mix" else "encoder"
    mapping = f"{{{name}: {text}}}"
    return {list[float]: f"[0.9, {text}]", dict[str, float]: mapping, dict[str, int]: mapping}.get(hint, text)


def meaning(key):
    """Return the documented meaning of a key on the page of the configuration."""
    (row,) = [line for line in CONFIG_PAGE.splitlines() if line.startswith(f"| `{key}` |")]
    return row.split(" | ")[3]


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_number_is_accepted_with_a_meaning_or_refused_in_one_sentence(text, tmp_path):
    path, keys = tmp_path / "conf.yaml", list(numeric_keys())
    path.write_text("runs: {one: }\n")
    assert len(keys) >= 38
    for key, hint in keys:
        try:
            load_config(path, "one", "E", "D", [f"{key}={written(key, hint, text)}"])
        except UserError as error:
            assert re.search(rf"{re.escape(key)}\b", str(error)), (key, str(error))
            assert "\n" not in str(error) and len(str(error)) < 400
        else:
            assert text in ("0", ".inf", "1e300"), (key, text)
            if text == ".inf":
                assert key in UNLIMITED and "`.inf` sets no limit" in meaning(key)
            elif text == "0":
                assert re.search(r"(^|\W)0(\W|$)", meaning(key).replace("1,000,000", "")), key


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (["optim.lr=0"], "optim.lr must be above 0 and at most 1000, got 0.0"),
        (["optim.lr=-1"], "optim.lr must be above 0 and at most 1000, got -1.0"),
        (["optim.lr=1e300"], "optim.lr must be above 0 and at most 1000, got 1e+300"),
        (["optim.betas=[0.9]"], "optim.betas must be two numbers of at least 0 and below 1, got [0.9]"),
        (["optim.betas=[0.9, 1]"], "optim.betas must be two numbers of at least 0 and below 1, got [0.9, 1.0]"),
        (["optim.weight_decay=-0.1"], "optim.weight_decay must be from 0 to 10000, got -0.1"),
        (["optim.warmup_steps=-1"], "optim.warmup_steps must be at least 0, got -1"),
        (["optim.min_lr_ratio=1.5"], "optim.min_lr_ratio must be from 0 to 1, got 1.5"),
        (["optim.clip=0"], "optim.clip must be above 0, got 0.0"),
        (["data.max_seconds=0"], "data.max_seconds must be above 0, got 0.0"),
        (["data.max_cuts=0"], "data.max_cuts must be at least 1, got 0"),
        (["data.num_buckets=0"], "data.num_buckets must be at least 1, got 0"),
        (["data.num_workers=-1"], "data.num_workers must be from 0 to 1024, got -1"),
        (["data.hours=-1"], "data.hours must be at least 0, got -1.0"),
        (["data.min_clip_seconds=40"], "data.min_clip_seconds must be at most max_clip_seconds (30.0), got 40.0"),
        (["data.max_clip_seconds=0"], "data.max_clip_seconds must be above 0, got 0.0"),
        (["train.steps=-1"], "train.steps must be at least 0, got -1"),
        (["train.epochs=-1"], "train.epochs must be at least 0, got -1"),
        (["train.hours=.inf"], "train.hours must be finite, got inf"),
        (["train.steps=0"], "train.steps, epochs or hours: exactly one must be above 0, got none; set the others to 0"),
        (["optim.decay=some"], "optim.decay must be one of 'matrices', 'all', got 'some'"),
        (["train.accumulate=0"], "train.accumulate must be at least 1, got 0"),
        (["train.log_every=-1"], "train.log_every must be at least 0, got -1"),
        (["train.save_every=-1"], "train.save_every must be at least 0, got -1"),
        (["train.eval_every=-1"], "train.eval_every must be at least 0, got -1"),
        (["train.eval_clips=0"], "train.eval_clips must be at least 1, got 0"),
        (["train.keep=0"], "train.keep must be at least 1, got 0"),
        (["train.patience=-1"], "train.patience must be at least 0, got -1"),
        (["train.average=0"], "train.average must be at least 1, got 0"),
        (["train.final=newest"], "train.final must be one of 'last', 'best', got 'newest'"),
        (
            ["train.patience=2", "train.eval_every=0"],
            "train.patience must be 0 with `eval_every: 0`, which measures no dev error rate, got 2",
        ),
        (
            ["train.final=best", "train.eval_every=0"],
            "train.final must be last with `eval_every: 0`, which measures no dev error rate, got best",
        ),
        (["train.final=best", "train.save_every=0"], "train.final must be last with `save_every: 0`, got best"),
        (["train.average=2", "train.save_every=0"], "train.average must be 1 with `save_every: 0`, got 2"),
        (
            ["train.frozen_steps={encodr: 2}"],
            "train.frozen_steps.encodr is not a part of the model; valid here: encoder, adapter, decoder",
        ),
        (["train.frozen_steps.encoder=-1"], "train.frozen_steps.encoder must be at least 0, got -1"),
        (
            ["train.frozen_steps.encoder=1000"],
            "train.frozen_steps.encoder must be below steps (1000), because a part that is never trained belongs in "
            "model.freeze, got 1000",
        ),
        (
            ["train.frozen_steps.encoder=5", "model.freeze=[encoder]"],
            "train.frozen_steps.encoder must be 0 for a part that `model` never trains, got 5",
        ),
        (
            ["train.frozen_steps={encoder: 5, adapter: 5, decoder: 1}"],
            "train.frozen_steps must be 0 for at least one part that is trained, got {'encoder': 5,",
        ),
        (["optim.lr_scale.encoder=0"], "optim.lr_scale.encoder must be above 0 and at most 1000"),
        (["optim.lr_scale.encoder=900", "optim.lr=2"], "and so must be its product with lr, got 900.0"),
        (["optim.lr_scale={head: 2}"], "optim.lr_scale.head is not a part of the model; valid here: encoder, adapter"),
        (["model.dropout=1"], "model.dropout must be at least 0 and below 1, got 1.0"),
        (["train.ctc_weight=2"], "train.ctc_weight must be from 0 to 1, got 2.0"),
        (["train.threads=-1"], "train.threads must be from 0 to 1024, got -1"),
        (["train.threads=100000"], "train.threads must be from 0 to 1024, got 100000"),
        (["train.hang_seconds=0"], "train.hang_seconds must be above 0 and at most 1e8, got 0.0"),
        (["train.hang_seconds=1e12"], "train.hang_seconds must be above 0 and at most 1e8, got 1000000000000.0"),
        (["tokenizer.vocab_size=0"], "tokenizer.vocab_size must be from 1 to 1000000 for kind sentencepiece, got 0"),
        (
            ["tokenizer.kind=byte_bpe", "tokenizer.vocab_size=255"],
            "tokenizer.vocab_size must be from 256 to 1000000 for kind byte_bpe, got 255",
        ),
        (["rollout.max_new_tokens=1000000"], "rollout.max_new_tokens must be from 1 to 100000, got 1000000"),
        (["decode.max_seconds=0"], "decode.max_seconds must be above 0, got 0.0"),
        (["rollout.top_p=1e-300"], "rollout.top_p must be from 1e-06 to 1, got 1e-300"),
        (["seed=-1"], "seed must be from 0 to 2147483647, got -1"),
        (
            ["optim.lr=1" + "0" * 400],
            "to 9223372036854775807, got a number of about 401 digits",
        ),
        (["train.steps=9223372036854775808"], "to 9223372036854775807, got a number of about 20 digits"),
        (["optim.clip=1e400"], "optim.clip, line 1: the value is too large: 1e400; write .inf for no limit"),
    ],
)
def test_number_out_of_bounds_is_named_with_its_bounds(items, expected, tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text("runs: {one: }\n")
    with pytest.raises(UserError) as caught:
        load_config(path, "one", "E", "D", items)
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", [*EXAMPLES, "-.inf"])
def test_every_number_of_a_builtin_plugin_is_accepted_with_a_meaning_or_refused_in_one_sentence(text):
    for entry in (entry for entry in load_plugins(BUILTINS)[0] if entry.source.module in BUILTINS):
        for key, hint in kinds_of(type(entry.config())).items():
            if hint not in (int, float):
                continue
            try:
                registry.check_plugin(entry.kind, entry.name, {key: parse_yaml(text, "here")})
            except UserError as error:
                assert "\n" not in str(error) and (key in str(error) or "the value is too large" in str(error))
            else:
                assert text in ("0", "1e300"), (entry.name, key, text)
                rows = [line for line in CONFIG_PAGE.splitlines() if f".options.{key}` | " in line]
                assert text != "0" or all(re.search(r"\b0 (sets no|excludes none)", row) for row in rows), key


def test_zero_of_every_interval_is_documented():
    intervals = [key for key, _ in numeric_keys() if key.endswith("_every")]
    assert len(intervals) == 4
    for key in intervals:
        assert re.search(r"\b0 (never|writes no)\b", meaning(key)), key


@pytest.mark.parametrize(
    "changes, needs",
    [
        ({}, True),
        ({"objective": "opd"}, False),
        ({"objective": "opd", "distill": DistillConfig(mix={"student": 0.5, "teacher": 0.5})}, False),
        ({"objective": "opd", "distill": DistillConfig(mix={"student": 0.5, "reference": 0.5})}, True),
        ({"objective": "opd", "rollout": RolloutConfig(empty="reference")}, True),
        ({"objective": "opd", "rollout": RolloutConfig(looping="reference")}, True),
    ],
)
def test_only_references_need_transcripts(changes, needs):
    assert Config(**changes).needs_text == needs
