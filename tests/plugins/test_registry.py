"""The plugin registry, with packages that the tests write: what is listed and created, and the messages."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from written_plugins import ONE_LOSS, good, refusal, rows

import arkasr
from arkasr import hookspecs
from arkasr.plugins import registry
from arkasr.plugins.loader import KINDS

ROOT = Path(__file__).parents[2]


def test_listing_and_create_work_for_good_plugin(install):
    folder = good(install)
    expected = {"name": "fake_good", "distribution": "arkasr-good", "version": "1.5", "error": ""}
    expected["file"] = str(folder / "fake_good.py")
    assert rows("arkasr-good") == [expected | {"kind": kind} for kind in ("loss", "teacher", "token_mapper")]
    teacher = registry.create("teacher", "fake_good", {"rate": 2}, device="cpu")
    assert (teacher.options.rate, teacher.context) == (2.0, {"device": "cpu"})
    assert registry.create("loss", "fake_good", {}).options is None


def test_create_imports_lazy_factory_on_first_use(install):
    good(install)
    registry.listing()
    assert "fake_good_parts" not in sys.modules
    mapper = registry.create("token_mapper", "fake_good", {"depth": 3}, student="s", teacher="t")
    assert (mapper.depth, mapper.pair) == (3, ("s", "t"))


def test_check_plugin_checks_options_without_factory(install):
    good(install)
    assert registry.check_plugin("teacher", "fake_good", {"rate": 2}).rate == 2.0
    assert registry.check_plugin("loss", "fake_good", {}) is None
    where = "fake_good', arkasr-good 1.5 (fake_good): "
    wrong = refusal(registry.create, "teacher", "fake_good", {"rtae": 2})
    assert wrong == f"options of teacher '{where}unknown key rtae; did you mean rate?"
    assert "rate must be a number, got 'x'" in refusal(registry.check_plugin, "teacher", "fake_good", {"rate": "x"})
    assert "depth is missing" in refusal(registry.check_plugin, "token_mapper", "fake_good", {})
    unwanted = refusal(registry.check_plugin, "loss", "fake_good", {"a": 1, "b": 2})
    assert unwanted == f"options of loss '{where}the plugin takes no options; remove a, b"


def test_create_with_unknown_name_lists_names_and_failures(install):
    good(install)
    install("arkasr-bad", "fake_bad", {"fake_bad": "import fake_nothing_here\n"})
    message = refusal(registry.create, "token_mapper", "nosuch", {})
    assert message.startswith("no token mapper is called 'nosuch'; available: ") and "fake_good" in message
    failed = "not loaded: arkasr-bad 1.5 (fake_bad): ModuleNotFoundError: No module named 'fake_nothing_here'"
    assert message.endswith(failed)
    assert registry.create("loss", "fake_good", {})


def test_create_names_lazy_factory_that_cannot_be_imported(install):
    install("arkasr-lazy", "fake_lazy", {"fake_lazy": ONE_LOSS.format(arguments="'a', 'fake_nothing:Loss'")})
    assert rows("arkasr-lazy")[0]["error"] == ""
    message = refusal(registry.create, "loss", "a", {})
    assert message.startswith("loss 'a', arkasr-lazy 1.5 (fake_lazy): fake_nothing:Loss cannot be imported: ")
    install("arkasr-odd", "fake_odd", {"fake_odd": ONE_LOSS.format(arguments="'b', print, 'os.path:sep'")})
    registry._load.cache_clear()
    assert "its config must be a dataclass" in refusal(registry.create, "loss", "b", {})


def test_name_registered_twice_is_refused_and_others_work(install):
    text = ONE_LOSS.format(arguments="'same', list)\n    register('{}', lambda options: options")
    install("arkasr-a", "fake_one", {"fake_a": text.format("only_a")})
    install("arkasr-b", "fake_one", {"fake_b": text.format("only_b")})
    message = refusal(registry.create, "loss", "same", {})
    assert message == (
        "loss 'same' is registered by arkasr-a 1.5 (fake_a) and by arkasr-b 1.5 (fake_b); "
        "uninstall one of them, or select plugins with ARKASR_PLUGINS"
    )
    found = {(row["name"], row["distribution"]): row["error"] for row in rows("arkasr-a") + rows("arkasr-b")}
    assert found == {
        ("only_a", "arkasr-a"): "",
        ("same", "arkasr-a"): message,
        ("only_b", "arkasr-b"): "",
        ("same", "arkasr-b"): message,
    }
    assert registry.create("loss", "only_b", {}) is None


def test_plugin_with_builtin_name_is_refused(install):
    name = next(row["name"] for row in registry.listing() if row["kind"] == "loss" and row["distribution"] == "arkasr")
    registry._load.cache_clear()
    install("arkasr-same", "fake_same", {"fake_same": ONE_LOSS.format(arguments=f"'{name}', list")})
    message = refusal(registry.check_plugin, "loss", name, {})
    assert "(arkasr.builtin.losses)" in message and "arkasr-same 1.5 (fake_same)" in message


def test_strict_variable_makes_failures_and_clashes_fatal(install, monkeypatch):
    monkeypatch.setenv("ARKASR_STRICT_PLUGINS", "1")
    good(install)
    monkeypatch.setenv("ARKASR_PLUGINS", "fake_good")
    assert registry.create("loss", "fake_good", {})
    install("arkasr-bad", "fake_bad", {"fake_bad": "import fake_nothing_here\n"})
    install("arkasr-c", "fake_c", {"fake_c": ONE_LOSS.format(arguments="'fake_good', list")})
    monkeypatch.setenv("ARKASR_PLUGINS", "fake_good,fake_bad,fake_c")
    registry._load.cache_clear()
    for call in (registry.listing, lambda: registry.check_plugin("teacher", "fake_good", {})):
        message = refusal(call)
        assert "arkasr-bad 1.5 (fake_bad): ModuleNotFoundError" in message and "'fake_good' is registered by" in message
    monkeypatch.setenv("ARKASR_STRICT_PLUGINS", "0")
    assert registry.listing()


def test_fingerprint_depends_on_names_and_versions_not_on_paths(install, monkeypatch, tmp_path):
    alone = registry.fingerprint()
    folder = good(install)
    registry._load.cache_clear()
    both = registry.fingerprint()
    assert both != alone and len(both) == 64
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in [*folder.glob("fake_*.py"), *folder.glob("*.dist-info")]:
        path.rename(elsewhere / path.name)
    del sys.modules["fake_good"]
    importlib.invalidate_caches()
    monkeypatch.syspath_prepend(elsewhere)
    registry._load.cache_clear()
    assert rows("arkasr-good")[0]["file"] == str(elsewhere / "fake_good.py")
    assert registry.fingerprint() == both


def test_builtins_register_through_hooks_without_failure():
    found = rows("arkasr")
    assert {row["kind"] for row in found} == set(KINDS) and not any(row["error"] for row in found)
    assert all(row["version"] == arkasr.__version__ and row["file"].startswith(str(ROOT)) for row in found)


def test_listing_does_not_import_large_packages(install):
    """Neither the public interface nor the listing imports packages that take seconds."""
    folder = good(install)
    heavy = ("torch", "transformers", "lhotse", "numpy", "scipy")
    code = "import json, sys, arkasr, arkasr.plugins.registry as p\n"
    code += "print(json.dumps([p.listing(), p.fingerprint(), [*sys.modules]]))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    listed, fingerprint, modules = json.loads(done.stdout)
    assert not set(heavy) & set(modules)
    assert listed == registry.listing() and fingerprint == registry.fingerprint()


def test_public_interface_lists_its_names():
    assert sorted([*arkasr.__all__, "transcribe"]) == dir(arkasr) and arkasr.hookimpl is hookspecs.hookimpl
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = arkasr.nothing
    assert arkasr.__version__
