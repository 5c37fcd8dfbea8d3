"""The Makefile: targets install once with pinned versions, repeat a failed installation, and pass options on."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORPORA = ("librispeech", "aishell")
PARALLEL = "-m pytest -n 2 --dist loadfile --no-loadscope-reorder"  # the order of tests/conftest.py
PYTHON = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
    *version_info*|"-c import ensurepip") exit "${OLD:-0}" ;;
    "-m venv .venv"*) mkdir -p "$3/bin"
        for tool in python arkasr ruff mypy mkdocs; do cp "$0" "$3/bin/$tool"; done ;;
    "-m pip freeze"*) echo "torch==2.0" ;;
    "-m pip"*) exit "${BROKEN:-0}" ;;
    *base_td_opd*) [ "${UNDISTILLED:-0}" = 0 ] || { echo "no student"; exit 2; } ;;
    train*) [ "${UNTRAINED:-0}" = 0 ] || { echo "no teacher"; exit 2; } ;;
    "-m pytest"*) echo "= ${CLOSING:-2 passed} in 0.10s ="; exit "${FAILING:-0}" ;;
esac
"""


@pytest.fixture
def call(tmp_path):
    """Call make or .ci/run in a copy of the checkout in which python and the tools only record their arguments."""
    root = tmp_path / "checkout"
    for name in CORPORA:
        (root / "egs" / name).mkdir(parents=True)
    shutil.copytree(ROOT / ".ci", root / ".ci")
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "plugins/arkasr-vllm/pyproject.toml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    recipes = ((f"checkout/egs/{name}/run.sh", f'#!/bin/sh\necho "{name} $*" >>"$LOG"\n') for name in CORPORA)
    for path, text in ("python", PYTHON), *recipes:
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


INSTALL = "-m pip install -q --disable-pip-version-check -c constraints.txt -e .[{}] -e plugins/arkasr-vllm"


def test_demo_installs_once_and_runs_the_recipe(call):
    done, calls = call("make", "demo")
    assert done.returncode == 0, done.stderr
    assert calls[2:4] == ["-m venv .venv", INSTALL.format("mini")]
    assert "2 to 5 minutes" in done.stdout
    again = call("make", "demo")[1]
    first, between, last = calls[4:5], calls[5:-1], calls[-1:]
    assert again[:1] == first == ["librispeech --scale mini --stop_stage 1"]
    assert again[-1:] == last == ["librispeech --scale mini --stage 4"] and len(again) == 11
    folders = "--expdir exp/mini --datadir data/mini"
    base, (steps, opd, teacher, td, td_opd) = (
        "librispeech --scale mini --stage 3 --variants base",
        (
            f"train conf/mini.yaml --run {run} {folders}"
            for run in ("base_steps", "base_opd", "teacher", "base_td", "base_td_opd")
        ),
    )
    label = f"label conf/mini.yaml {folders}"
    decode_opd, decode_td = (
        f"decode --runs {runs} {folders}" for runs in ("teacher base_steps base_opd", "base_td_opd")
    )
    for chain in [base, steps, opd, decode_opd], [teacher, label, td, td_opd, decode_td], [base, td], [teacher, opd]:
        assert [each for each in between if each in chain] == chain  # the two chains run at the same time
    assert len(between) == 9


def test_demo_of_another_corpus_runs_in_its_folder(call):
    done, calls = call("make", "demo", "CORPUS=aishell")
    assert done.returncode == 0, done.stderr
    assert calls[-1] == "aishell --scale mini --stage 4" and not any("librispeech" in each for each in calls)
    assert "egs/aishell/exp/mini/teacher.log" in done.stdout


def test_demo_trains_and_decodes_by_the_commands_of_the_recipe():
    """But for the order of their words, and all runs are decoded by some command."""
    dry = subprocess.run(
        [ROOT / "egs/librispeech/run.sh", "--stage", "2", "--stop_stage", "4", "--dry_run", "true"],
        capture_output=True,
        text=True,
    )
    recipe = [shlex.split(line.split("-m arkasr ")[1]) for line in dry.stdout.splitlines() if "-m arkasr" in line]
    (decode,) = (words for words in recipe if words[0] == "decode")
    text = (ROOT / "Makefile").read_text().replace("\\\n", "")
    folders = re.search(r"^MINI_DIRS = (.*)", text, re.M)[1]
    steps = [*re.findall(r"\$\(MINI_STEP\) (\w[^$]*) \$\(MINI_DIRS\)", text)]
    steps += re.findall(r"'([^']*)'", re.search(r"for step in (.*?);", text)[1])
    decoded = ["base"]  # by run.sh
    for step in steps:
        words = f"{step} {folders}".split()
        if words[0] == "decode":
            decoded += step.split("--runs ")[1].split()
            words = [*(each for each in words if each not in decoded), *decode[-1:]]
        assert sorted(words) in [sorted(each) for each in recipe], words
    assert len(steps) == 8 and sorted(decoded) == sorted(decode[-1].split())


def test_demo_ends_if_the_teacher_cannot_be_trained(call):
    done, calls = call("make", "demo", UNTRAINED="1")
    assert done.returncode != 0 and "no teacher" in done.stdout
    assert "librispeech --scale mini --stage 4" not in calls


def test_demo_ends_if_one_of_the_students_cannot_be_trained(call):
    done, calls = call("make", "demo", UNDISTILLED="1")
    assert done.returncode != 0 and "no student" in done.stdout
    assert "librispeech --scale mini --stage 4" not in calls


def test_failed_installation_is_repeated(call):
    done, calls = call("make", "demo", BROKEN="1")
    assert done.returncode != 0 and "the installation failed" in done.stdout
    assert calls[-1].startswith("-m pip")
    assert call("make", "demo")[1][-1] == "librispeech --scale mini --stage 4"


def test_old_python_is_refused_with_one_sentence(call):
    done, calls = call("make", "test", OLD="1")
    assert done.returncode != 0 and "older than 3.11" in done.stdout
    assert len(calls) == 1


def test_test_checks_the_code_and_passes_arguments_to_pytest(call):
    done, calls = call("make", "test", "PYTEST_ARGS=-k one")
    assert done.returncode == 0, done.stderr
    assert INSTALL.format("dev") in calls
    assert calls[-4:] == ["check", "format --check", "", f"{PARALLEL} -k one"]  # ruff, ruff, mypy, pytest


def test_quick_leaves_out_marked_tests(call):
    done, calls = call("make", "quick")
    assert done.returncode == 0, done.stderr
    assert calls[-1] == "-m pytest -m not slow and not distributed and not e2e"


def test_docs_generates_the_configuration_page_and_builds_strictly(call):
    done, calls = call("make", "docs")
    assert done.returncode == 0, done.stderr
    assert INSTALL.format("docs") in calls
    assert calls[-2:] == ["docs/make_config.py", "build --strict"]


def test_test_latest_installs_without_constraints_every_time(call):
    for _ in range(2):
        done, calls = call("make", "test-latest")
        assert done.returncode == 0, done.stderr
        (install,) = (words for words in calls if "pip install" in words)
        assert "-c constraints.txt" not in install and "-e .[dev,docs]" in install
        assert calls[-1] == PARALLEL


def test_constraints_are_the_versions_of_a_passing_run(call, tmp_path):
    path = tmp_path / "checkout" / "constraints.txt"
    before = path.read_text()
    assert call("make", "constraints", FAILING="1")[0].returncode != 0 and path.read_text() == before
    done, _ = call("make", "constraints")
    assert done.returncode == 0, done.stderr
    lines = path.read_text().splitlines()
    assert lines[0].startswith("#") and lines[1:] == ["torch==2.0"]


def test_help_names_every_target(call):
    done, _ = call("make", "help")
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert [target for target in targets if target != "help" and f"make {target} " not in done.stdout] == []
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 110


def test_ci_ends_with_the_closing_line_and_its_status(call):
    done, calls = call(".ci/run")
    assert done.returncode == 0 and calls[-1] == PARALLEL
    assert done.stdout.splitlines()[-1] == "= 2 passed in 0.10s ="
    done, _ = call(".ci/run", FAILING="1", CLOSING="1 failed, 2 passed")
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == "= 1 failed, 2 passed in 0.10s ="


def test_constraints_pin_every_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.M)
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    names = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", item)[0]).lower() for item in declared}
    assert names - {"arkasr"} - pinned == set()
