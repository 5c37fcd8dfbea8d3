"""The two commands: set up once, try again after a failure, and pass on what the user asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
    *version_info*|"-c import ensurepip") exit "${OLD:-0}" ;;
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip"*) exit "${BROKEN:-0}" ;;
    "-m pytest"*) echo "= ${CLOSING:-2 passed} in 0.10s ="; exit "${FAILING:-0}" ;;
esac
"""


@pytest.fixture
def call(tmp_path):
    """Call make or .ci/run in a copy of the checkout where python only writes down what it was asked."""
    root = tmp_path / "checkout"
    (root / "egs" / "librispeech").mkdir(parents=True)
    shutil.copytree(ROOT / ".ci", root / ".ci")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    for path, text in ("python", PYTHON), ("checkout/egs/librispeech/run.sh", '#!/bin/sh\necho "run.sh $*" >>"$LOG"\n'):
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    log = tmp_path / "log"

    def run(*words, **env):
        log.write_text("")
        own = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "PYTEST_ARGS")}
        env = {**own, "PYTHON": str(tmp_path / "python"), "LOG": str(log), **env}
        done = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True)
        return done, log.read_text().splitlines()

    return run


def test_demo_installs_once_and_runs_the_recipe(call):
    done, asked = call("make", "demo")
    assert done.returncode == 0, done.stderr
    assert asked[2:] == [
        "-m venv .venv",
        "-m pip install -q --disable-pip-version-check -e .[mini]",
        "run.sh --scale mini",
    ]
    assert "2 to 5 minutes" in done.stdout
    assert call("make", "demo")[1] == ["run.sh --scale mini"]


def test_a_failed_installation_is_tried_again(call):
    done, asked = call("make", "demo", BROKEN="1")
    assert done.returncode != 0 and "the installation failed" in done.stdout
    assert asked[-1].startswith("-m pip")
    assert call("make", "demo")[1][-1] == "run.sh --scale mini"


def test_an_old_python_is_a_sentence(call):
    done, asked = call("make", "test", OLD="1")
    assert done.returncode != 0 and "older than 3.11" in done.stdout
    assert len(asked) == 1


def test_test_passes_arguments_to_pytest(call):
    done, asked = call("make", "test", "PYTEST_ARGS=-k one")
    assert done.returncode == 0, done.stderr
    assert "-m pip install -q --disable-pip-version-check -e .[test]" in asked
    assert asked[-1] == "-m pytest -k one"


def test_ci_ends_with_the_closing_line_and_its_status(call):
    done, asked = call(".ci/run")
    assert done.returncode == 0 and asked[-1] == "-m pytest"
    assert done.stdout.splitlines()[-1] == "= 2 passed in 0.10s ="
    done, _ = call(".ci/run", FAILING="1", CLOSING="1 failed, 2 passed")
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == "= 1 failed, 2 passed in 0.10s ="
