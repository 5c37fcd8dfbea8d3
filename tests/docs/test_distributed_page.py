"""docs/distributed.md: its commands are accepted, and the options, defaults and keys that it names exist."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from arkasr import cli
from arkasr.config import schema

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
COMMANDS = [
    shlex.split(line)
    for language, text in BLOCKS
    if language == "sh"
    for line in text.replace("\\\n", " ").splitlines()
]
RECIPES = [words for words in COMMANDS if words[0].endswith("run.sh")]
OTHERS = {"--wait", "--node-rank"}  # options of sbatch and torchrun


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the recipes, with the page's hosts.txt in the working directory of its commands."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "egs", root / "egs", ignore=shutil.ignore_patterns("data", "exp", "downloads"))
    (hosts,) = (text for language, text in BLOCKS if language == "text")
    (root / "hosts.txt").write_text(hosts)
    return root


@pytest.fixture(scope="module")
def options() -> dict[str, str]:
    """The recipe's options with their defaults."""
    shown = subprocess.run([ROOT / "egs/librispeech/run.sh", "--help"], capture_output=True, text=True, check=True)
    return dict(re.findall(r"^  --(\w+) .*\[(.*)\]$", shown.stdout, re.M))


@pytest.mark.parametrize("words", RECIPES, ids=" ".join)
def test_recipe_commands_are_accepted(words, checkout):
    done = subprocess.run([*words, "--dry_run", "true"], cwd=checkout, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    started = "torch.distributed.run" in done.stdout
    assert started and "Dry run: nothing was run" in done.stdout
    if "--hostfile" in words:
        assert re.search(
            r"^ssh alice@node2 .*--nnodes 3 --nproc-per-node 4 --node-rank 2 --master-addr node0", done.stdout, re.M
        )


def test_commands_are_of_the_kinds_tested_here():
    assert [words[0] for words in COMMANDS if words not in RECIPES] == ["torchrun", "export", "arkasr", "torchrun"]
    assert len(RECIPES) == 4
    assert cli.parse(next(words for words in COMMANDS if words[0] == "arkasr")[1:])[0] == "export"


def test_torchrun_command_is_the_one_that_the_recipe_starts(checkout):
    torchrun = next(words for words in COMMANDS if words[:2] == ["torchrun", "--nnodes"])
    by_hand = next(words for words in RECIPES if "--node_rank" in words)
    done = subprocess.run([*by_hand, "--dry_run", "true"], cwd=checkout, check=True, capture_output=True, text=True)
    launcher, training = " ".join(torchrun[1:]).split(" arkasr ")
    assert f"torch.distributed.run {launcher} " in done.stdout and f" arkasr {training}\n" in done.stdout


def test_named_options_exist(options):
    text = re.sub(r"```.*?```", "", PAGE, flags=re.S)
    named = set(re.findall(r"`[^`]*?(--[a-z][\w-]*)", text))
    assert {"--ngpu", "--grace", "--max_restarts", "--slurm_args"} <= named
    assert {name for name in named if name[2:] not in options} <= OTHERS


def test_defaults_are_those_of_the_recipe(options):
    flat = " ".join(PAGE.split())
    assert f"After `--grace` seconds ({options['grace']})" in flat
    restarts = options["max_restarts"]
    assert f"`--max_restarts` times per run, from the newest checkpoint. The default is {restarts}." in flat
    assert f"is reported once per restart ({int(restarts) + 1} times)" in flat


def test_named_keys_exist_and_all_fsdp_keys_are_named():
    values = {item.name: getattr(schema.Config(), item.name) for item in dataclasses.fields(schema.Config)}
    sections = {name: value for name, value in values.items() if dataclasses.is_dataclass(value)}
    keys = {f"{name}.{item.name}" for name, value in sections.items() for item in dataclasses.fields(value)}
    named = set(re.findall(rf"`((?:{'|'.join(sections)})\.\w+)[=`]", PAGE))
    assert named <= keys and len(named) >= 12
    assert {key for key in keys if key.startswith("fsdp.")} <= named


def test_variables_passed_over_ssh_are_those_of_cmd_sh():
    passed = re.search(r"=~ \^\((.*?)\)\$ ", (ROOT / "egs" / "cmd.sh").read_text())[1].replace(".*", "*").split("|")
    listed = re.search(r"so the recipe passes these variables on: (.*?)\.", PAGE.replace("\n", " "))[1]
    assert re.findall(r"`([A-Z_*]+)`", listed) == passed
