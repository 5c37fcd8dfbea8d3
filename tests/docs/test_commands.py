"""Commands of all pages: every target, verb, option and configuration key exists."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from pages import PAGES, ROOT, commands, kind, option

from arkasr import cli
from arkasr.config.load import load_config

COMMANDS = [words for page in PAGES for words in commands(page.read_text(encoding="utf-8"))]
UNIQUE = [list(words) for words in dict.fromkeys(map(tuple, COMMANDS))]
OTHERS = {
    "cp",
    "vllm",
    "hf",
    "curl",
    "mkdir",
    "find",
    "sed",
    "tar",
    "pip",
    "pre-commit",
    "export",
    "for",
    "do",
    "done",
    "lhotse",
    "python",
    "srun",
    "sbatch",
    "torchrun",
    "cd",
}


def of_kind(name: str) -> list:
    return [pytest.param(words, id=" ".join(words)) for words in UNIQUE if kind(words) == name]


def test_every_command_is_of_a_tested_kind():
    unknown = {kind(words) for words in COMMANDS} - {"make", "run.sh", "arkasr"} - OTHERS
    assert not unknown, f"test the commands {unknown} here, or add them to OTHERS"
    assert len(COMMANDS) >= 30


@pytest.mark.parametrize("words", of_kind("make"))
def test_make_target_exists(words):
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the recipes in which the pages' cp and sed commands have run."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "egs", root / "egs", ignore=shutil.ignore_patterns("data", "exp", "downloads"))
    (root / "hosts.txt").write_text("node0\nnode1\nnode2\n")
    for words in UNIQUE:  # several pages copy the same recipe
        if kind(words) in ("mkdir", "cp", "sed"):
            subprocess.run(words, cwd=root, check=True)
    return root


@pytest.mark.parametrize("words", of_kind("run.sh"))
def test_recipe_command_is_accepted(words, checkout):
    dry = [] if {"--help", "--dry_run"} & set(words) else ["--dry_run", "true"]
    done = subprocess.run([*words, *dry], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--help" in words or "Dry run" in done.stdout


def test_copied_recipe_works_in_its_own_folder(checkout):
    (words,) = (words for words in UNIQUE if words[0] == "egs/mycorpus/run.sh")
    done = subprocess.run([*words, "--dry_run", "true"], cwd=checkout, capture_output=True, text=True)
    assert f"\ncd {checkout}/egs/mycorpus\n" in done.stdout


def test_24_worker_command_starts_8_processes_on_each_of_3_machines(checkout):
    words = next(words for words in UNIQUE if "--num_nodes" in words and "--node_rank" in words)
    done = subprocess.run([*words, "--dry_run", "true"], cwd=checkout, capture_output=True, text=True)
    assert "--nnodes 3 --nproc-per-node 8 --node-rank 0 --master-addr node0" in done.stdout


@pytest.mark.parametrize("words", of_kind("arkasr"))
def test_verb_and_options_are_accepted(words):
    assert cli.parse(words[1:])[0] == words[1]


def overridden() -> list:
    """Return (configuration, run, overrides) of every command that overrides keys."""
    found = []
    for words in UNIQUE:
        if kind(words) == "run.sh" and "--train_args" in words and "loss.name=union_reverse_kl" not in words:
            path = ROOT / Path(words[0]).parent / "conf" / f"{option(words, '--scale', 'mini')}.yaml"
            runs = option(words, "--variants", "base_opd").split()
            found += [(path, run, option(words, "--train_args").split()) for run in runs if path.is_file()]
        elif words[:2] == ["arkasr", "train"]:
            args = cli.parse(words[1:])[1]
            found.append((ROOT / args.conf, args.run, args.overrides))
    return found


@pytest.mark.parametrize(("path", "run", "overrides"), overridden())
def test_overridden_keys_are_in_the_schema(path, run, overrides):
    assert overrides and load_config(path, run, "e", "d", overrides) != load_config(path, run, "e", "d")
