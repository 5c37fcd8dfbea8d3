"""The identity of a teacher: what makes it another one, and what does not."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from arkasr.config.schema import PluginConfig
from arkasr.evaluation.identity import changed_teacher, teacher_identity


def write_weights(folder, content: bytes):
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    return str(folder)


@pytest.fixture
def folders(tmp_path):
    return [write_weights(tmp_path / name, name.encode()) for name in ("one", "two")]


@pytest.mark.parametrize(
    ("name", "options", "changed"),
    [
        ("a", {"path": "{0}", "voice": "low"}, []),
        ("b", {"path": "{0}", "voice": "low"}, ["teacher.name"]),
        ("a", {"path": "{0}", "voice": "high"}, ["teacher.options.voice"]),
        ("a", {"path": "{0}"}, ["teacher.options.voice"]),
        ("a", {"path": "{1}", "voice": "low"}, ["weights in teacher.options.path"]),
        ("a", {"path": "some/model", "voice": "low"}, ["teacher.options.path"]),
        ("a", {"voice": "low"}, ["teacher.options.path"]),
    ],
)
def test_changed_teacher_names_what_differs(folders, name, options, changed):
    before = teacher_identity(PluginConfig("a", {"path": folders[0], "voice": "low"}))
    options = {key: value.format(*folders) for key, value in options.items()}
    assert changed_teacher(before, teacher_identity(PluginConfig(name, options))) == changed


def test_equal_weights_at_another_path_are_the_same_teacher(folders, tmp_path):
    copy = write_weights(tmp_path / "copy", b"one")
    one, other = (teacher_identity(PluginConfig("a", {"path": path})) for path in (folders[0], copy))
    assert one["weights"] and changed_teacher(one, other) == []


def test_identity_covers_weights_of_models_in_other_options(folders):
    """A teacher of several models names them in a list."""
    config = PluginConfig("ensemble", {"paths": folders, "nested": {"judge": folders[1]}})
    before = teacher_identity(config)
    write_weights(Path(folders[1]), b"retrained")
    changed = changed_teacher(before, teacher_identity(config))
    assert changed == ["weights in teacher.options.nested.judge", "weights in teacher.options.paths.1"]


def test_identity_holds_no_secrets():
    options = {"api_key": "hidden-1", "base_url": "https://user:hidden-2@host/v1?api_key=hidden-3"}
    assert "hidden" not in str(teacher_identity(PluginConfig("remote", options)))


def test_identity_is_the_same_after_it_was_recorded():
    """YAML has dates, and mappings with numbers as keys, which JSON has not."""
    options = {"since": date(2026, 1, 2), "layers": {1: [0.5, None]}, "tags": ["a", True]}
    identity = teacher_identity(PluginConfig("a", options))
    assert changed_teacher(json.loads(json.dumps(identity)), identity) == []
