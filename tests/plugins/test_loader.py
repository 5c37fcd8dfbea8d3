"""Loading of plugins: which are selected, what fails, and the cause that is listed."""

from __future__ import annotations

import pytest
from written_plugins import GOOD, ONE_LOSS, good, refusal, rows

from arkasr import hookspecs
from arkasr.plugins import registry
from arkasr.plugins.loader import KINDS


def cause(install, text: str, target: str = "") -> str:
    """Install a plugin that must fail and one that works, and return the listed cause of the failure."""
    folder = install("arkasr-bad", "fake_bad", {"fake_bad": text}, target)
    good(install)
    assert [row["kind"] for row in rows("arkasr-good")] == ["loss", "teacher", "token_mapper"]
    (row,) = rows("arkasr-bad")
    assert (row["kind"], row["name"], row["version"]) == ("", "fake_bad", "1.5")
    assert row["file"] == str(folder / "fake_bad.py")
    return row["error"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import fake_nothing_here", "ModuleNotFoundError: No module named 'fake_nothing_here'"),
        ("import sys\nsys.exit('bye')", "SystemExit: bye"),
        ("def broken(:", "SyntaxError: "),
        ("x = 1", "registers no name; mark a function called register_teachers or"),
        (
            ONE_LOSS.replace("losses", "loses").format(arguments="'x', print"),
            "register_loses is marked as a hook, but arkasr has no such hook; use register_losses",
        ),
        (ONE_LOSS.replace("losses", "teacher").format(arguments="'x', print"), "use register_teachers"),
        (ONE_LOSS.replace("(register)", "(regster)").format(arguments="'x'"), "PluginValidationError: "),
        (ONE_LOSS.format(arguments="'x'"), "TypeError: "),
        (ONE_LOSS.format(arguments="'two words', print"), "loss 'two words': a name may contain letters"),
        (ONE_LOSS.format(arguments="3, print"), "loss 3: a name may contain letters"),
        (ONE_LOSS.format(arguments="'x', 'a b'"), "factory must be callable or 'module:attribute', got 'a b'"),
        (ONE_LOSS.format(arguments="'x', 5"), "factory must be callable or 'module:attribute', got 5"),
        (ONE_LOSS.format(arguments="'x', print, int"), "config must be a dataclass or 'module:attribute'"),
        (ONE_LOSS.format(arguments="'x', print)\n    register('x', print"), "registers loss 'x' twice"),
    ],
)
def test_listing_shows_cause_of_broken_plugin(install, text, message):
    assert message in cause(install, text)


def test_listing_shows_cause_of_missing_entry_point_object(install):
    assert "AttributeError" in cause(install, "x = 1", "fake_bad:nothing")


def test_plugin_that_fails_after_one_name_registers_none(install):
    text = GOOD.format(name="fake_bad").replace('register("fake_bad", Plugin)', "raise RuntimeError('no GPU\\nhere')")
    assert cause(install, text) == "RuntimeError: no GPU here"
    assert "no teacher is called 'fake_bad'" in refusal(registry.create, "teacher", "fake_bad", {})


def test_arkasr_plugins_variable_selects_installed_plugins(install, monkeypatch):
    good(install)
    good(install, "fake_other", "arkasr-other")
    for value, kept in (
        ("", set()),
        ("fake_other", {"arkasr-other"}),
        (" fake_good , fake_other", {"arkasr-good", "arkasr-other"}),
    ):
        monkeypatch.setenv("ARKASR_PLUGINS", value)
        registry._load.cache_clear()
        assert {row["distribution"] for row in registry.listing()} - {"arkasr"} == kept
    monkeypatch.setenv("ARKASR_PLUGINS", "fake_goood")
    registry._load.cache_clear()
    assert registry.listing()[-1]["error"].startswith(
        "ARKASR_PLUGINS names fake_goood, which is not an installed plugin"
    )


def test_every_hook_has_kind_and_documents_factory_call():
    hooks = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert hooks == set(KINDS.values())
    for name in hooks:
        assert "register(name, factory, config=None)" in getattr(hookspecs, name).__doc__
