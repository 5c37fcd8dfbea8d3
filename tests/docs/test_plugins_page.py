"""docs/plugins.md shows the signatures of the source, and its three plugins pass its own tests."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import torch
from fresh_plugins import fresh_plugins
from installed import install

import arkasr
from arkasr import hookspecs, interfaces, testing
from arkasr.errors import UserError
from arkasr.plugins import registry
from arkasr.plugins.loader import KINDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
PROTOCOLS = {
    "Register": hookspecs.Register,
    **{name: value for name, value in vars(interfaces).items() if getattr(value, "_is_protocol", False)},
}
RECORDS = [value for value in vars(interfaces).values() if dataclasses.is_dataclass(value)]


def blocks(language: str, within: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", within, re.M | re.S)


def section(title: str) -> str:
    return re.search(rf"^##+ {re.escape(title)}.*?\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)[1]


def signature(function) -> str:
    return f"def {function.__name__}{inspect.signature(function)}: ...".replace("'", "")


def test_plugins_page_shows_hook_signatures():
    hooks = [f for f in vars(hookspecs).values() if inspect.isfunction(f) and hasattr(f, "arkasr_spec")]
    assert [f.__name__ for f in hooks] == list(KINDS.values())
    shown = re.findall(r"^(def register_.*: \.\.\.)  # factory\(options", blocks("python", section("Hooks"))[0], re.M)
    assert shown == [signature(hook) for hook in hooks]


def shown_methods() -> dict[str, list[str]]:
    """Return what the page shows of each protocol."""
    text = "".join(blocks("python", section("Hooks")) + blocks("python", section("What each kind guarantees")))
    found = re.findall(r"^class (\w+).*:.*\n((?:    def .*\n)+)", text, re.M)
    return {name: [line.strip() for line in body.splitlines()] for name, body in found}


def test_plugins_page_shows_all_protocols():
    assert set(shown_methods()) == set(PROTOCOLS) - {"Protocol"}


@pytest.mark.parametrize("name", sorted(shown_methods()))
def test_plugins_page_shows_method_signatures(name):
    own = [f for f in vars(PROTOCOLS[name]).values() if inspect.isfunction(f) and f.__module__.startswith("arkasr.")]
    assert own and shown_methods()[name] == [signature(f) for f in own]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_plugins_page_names_record_fields(record):
    assert f"`{record.__name__}`" in PAGE
    assert [f.name for f in dataclasses.fields(record) if f"`{f.name}`" not in PAGE] == []


@pytest.mark.parametrize("name", ["Teacher", "DistributionView"])
def test_plugins_page_names_protocol_attributes(name):
    line = re.search(rf"^class {name}:(.*)$", PAGE, re.M)[1]
    assert all(f"`{attribute}`" in line for attribute in PROTOCOLS[name].__annotations__)


def test_plugins_page_names_existing_objects():
    for name in set(re.findall(r"`(arkasr(?:\.\w+)+)[(`]", PAGE)) | set(re.findall(r"\barkasr\.\w+", PAGE)):
        first = name.split(".")[1]
        assert first in (*arkasr.__all__, "testing"), name
    for path in re.findall(r"`((?:plugins|arkasr|docs)/[\w./-]+)`", PAGE):
        assert (ROOT / path).exists(), path
    assert all(hasattr(testing, name) for name in re.findall(r"`(check_\w+)", PAGE))
    assert len(PAGE.splitlines()) <= 290


def test_plugins_page_environment_variables_match_source():
    source = "".join((ROOT / "arkasr" / name).read_text() for name in ("plugins/registry.py", "plugins/loader.py"))
    assert set(re.findall(r"ARKASR_[A-Z_]+", PAGE)) == set(re.findall(r"ARKASR_[A-Z_]+", source))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install the page's package of three plugins."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(blocks("toml")[0])
    for title, module in re.findall(r"^### (A .*?): `(\w+)\.py`$", PAGE, re.M):
        (package / f"{module}.py").write_text(blocks("python", section(title))[0])
    project = install(package, tmp_path / "site")
    monkeypatch.setenv("ARKASR_PLUGINS", ",".join(project["entry-points"]["arkasr"]))
    monkeypatch.syspath_prepend(tmp_path / "site")
    with fresh_plugins("arkasr_"):
        yield project


def test_plugins_page_examples_cover_each_kind(installed):
    rows = {row["name"]: row["kind"] for row in registry.listing() if row["distribution"] == installed["name"]}
    assert rows == {"leading": "token_mapper", "logit_mse": "loss", "tempered": "teacher"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_the_loss", "test_the_mapper", "test_the_teacher"])
def test_plugins_page_examples_pass_their_tests(installed, tmp_path, name):
    space: dict = {}
    exec(blocks("python", section("Test your plugin"))[0], space)
    assert {key for key in space if key.startswith("test_")} == {"test_the_loss", "test_the_mapper", "test_the_teacher"}
    space[name](**dict.fromkeys(inspect.signature(space[name]).parameters, tmp_path))


def test_plugins_page_mapper_stops_at_first_missing_token(installed):
    student, teacher = testing.tiny_student(), testing.tiny_teacher()
    mapper = testing.create("token_mapper", "leading", {}, student=student, teacher=teacher)
    ids = student.text_ids("the sea")
    missing = next(i for i in range(len(student.tokenizer)) if int(mapper.to_teacher(torch.tensor(i))) == -1)
    alignment = mapper.align([ids, [*ids[:2], missing, *ids[2:]], [missing]])
    assert alignment.teacher_ids[1] == [*alignment.teacher_ids[0][:2], mapper.stop] and alignment.teacher_ids[2] == [
        mapper.stop
    ]
    n = len(ids)
    assert alignment.student_rows.tolist() == [*range(n), n, n + 1, n + 2, 2 * n + 1]
    assert alignment.teacher_rows.tolist() == list(range(n + 4)) and alignment.num_mismatched == 2


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        ("teacher", "tempered", {}, "path is missing and has no default"),
        ("teacher", "tempered", {"path": "x", "temperature": 0.0}, "'tempered'.*temperature=0.0: must be above 0"),
        ("token_mapper", "leading", {"depth": 1}, "takes no options"),
        ("teacher", "tempered", {"path": "x", "temprature": 2.0}, "temprature.*did you mean temperature"),
        ("loss", "logit_mse", {"weight": 1.0}, "takes no options"),
    ],
)
def test_plugins_page_example_options_are_checked(installed, kind, name, options, message):
    with pytest.raises(UserError, match=message):
        registry.check_plugin(kind, name, options)
