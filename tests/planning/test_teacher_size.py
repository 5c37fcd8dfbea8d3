"""Teachers of plugins in a plan: counted, stated by the plugin, or reported as not known, but never silently 0."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from planned_runs import planned
from tiny import teacher

from arkasr.errors import UserError
from arkasr.planning import teacher_size as module
from arkasr.planning.table import table
from arkasr.plugins import registry


@dataclass
class Elsewhere:
    memory_gib: ClassVar[float] = 0.0


@dataclass
class Stated:
    size: float = 3.0

    def memory_gib(self) -> float:
        return 2 * self.size


@dataclass
class Models:
    paths: list[str] = field(default_factory=list)


@dataclass
class Other:
    path: str = ""


@pytest.fixture
def plugin(monkeypatch):
    """Return a function that makes `teacher.name` a plugin with these options."""

    def use(options):
        check = registry.check_plugin
        given = lambda kind, *rest: options if kind == "teacher" else check(kind, *rest)  # noqa: E731
        monkeypatch.setattr(module.registry, "check_plugin", given)
        return planned("base_opd", ("teacher.name=mine", "teacher.options={}"), gpus=1)

    return use


def items(result) -> dict[str, float]:
    return result["memory_gib"]["items"]


def text(result) -> str:
    return " ".join(" ".join(table(result)).split())


def test_teacher_in_another_process_takes_no_memory_and_is_said_to(plugin):
    result = plugin(Elsewhere())
    assert not any("teacher" in name for name in items(result)) and result["teacher"]["memory_gib"] == 0.0
    assert "teacher mine: computes in another process; time not included" in text(result)
    assert " fits: " in text(result)


def test_stated_memory_counts_in_every_phase(plugin):
    result, without = plugin(Stated(3.0)), plugin(Elsewhere())
    assert items(result)["teacher"] == 6.0
    for name, peak in result["memory_gib"]["peaks"].items():
        assert peak == pytest.approx(without["memory_gib"]["peaks"][name] + 6.0)
    assert "teacher mine: 6 GiB by its own account" in text(result)


@pytest.mark.parametrize("value", [-1.0, float("nan"), True, "much"])
def test_wrong_statement_is_an_error(plugin, value):
    with pytest.raises(UserError, match=r"teacher 'mine': memory_gib of its options is .*; correct the plugin"):
        options = Stated()
        options.memory_gib = value
        plugin(options)


def test_models_at_several_paths_are_counted(plugin, tmp_path):
    teacher().save(tmp_path / "a")
    one = plugin(Models([str(tmp_path / "a")]))
    two = plugin(Models([str(tmp_path / "a")] * 2))
    total = sum(p.numel() for p in teacher().parameters())
    assert one["teacher"]["parameters"]["total"] == total and two["teacher"]["parameters"]["total"] == 2 * total
    assert items(two)["teacher weights"] == 2 * items(one)["teacher weights"] > 0
    assert two["tflop"]["teacher"] == pytest.approx(2 * one["tflop"]["teacher"]) and one["tflop"]["teacher"] > 0


@pytest.mark.parametrize("options", [None, Other(), Other("someone/model"), Models(), Models(["", "b"])])
def test_unknown_teacher_is_named_and_the_run_is_not_said_to_fit(plugin, options):
    result = plugin(options)
    assert result["teacher"]["memory_gib"] is None and result["teacher"]["parameters"] is None
    assert result["teacher"]["known"] is False
    shown = text(result)
    assert "teacher mine: memory and time not known and not included (" in shown
    assert "fits without the teacher, whose memory is not known: " in shown and " fits: " not in shown
    assert max(map(len, table(result))) <= 80


def test_missing_model_of_a_builtin_teacher_is_an_error():
    with pytest.raises(UserError, match="someone/model: no config.json here or in the Hub's cache"):
        planned("base_opd", ("teacher.options.path=someone/model",))


def test_supervised_runs_have_no_teacher():
    assert planned("base")["teacher"] is None
