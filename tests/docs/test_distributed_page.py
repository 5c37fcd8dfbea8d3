"""docs/distributed.md keeps its word: its commands are accepted, and the options, defaults and keys it names exist."""

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
OTHERS = {"--max-restarts", "--wait", "--node-rank"}  # of torchrun and sbatch


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the recipes, and the page's hosts.txt where its commands are given."""
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


def test_the_commands_are_of_kinds_that_are_tested_here():
    assert [words[0] for words in COMMANDS if words not in RECIPES] == ["export", "arkasr"] and len(RECIPES) == 4
    assert cli.parse(next(words for words in COMMANDS if words[0] == "arkasr")[1:])[0] == "export"


def test_every_option_that_is_named_exists(options):
    text = re.sub(r"```.*?```", "", PAGE, flags=re.S)
    named = set(re.findall(r"`[^`]*?(--[a-z][\w-]*)", text))
    assert {"--ngpu", "--grace", "--max_restarts", "--slurm_args"} <= named
    assert {name for name in named if name[2:] not in options} <= OTHERS


def test_the_defaults_are_those_of_the_recipe(options):
    flat = " ".join(PAGE.split())
    assert f"After `--grace` seconds ({options['grace']})" in flat
    assert (
        f"`--max_restarts` times a run; they carry on from the newest checkpoint. The default is {options['max_restarts']}:"
        in flat
    )


def test_every_key_that_is_named_exists_and_every_key_of_fsdp_is_named():
    sections = {item.name: getattr(schema.Config(), item.name) for item in dataclasses.fields(schema.Config)}
    keys = {
        f"{name}.{item.name}"
        for name, value in sections.items()
        if dataclasses.is_dataclass(value)
        for item in dataclasses.fields(value)
    }
    named = set(re.findall(rf"`((?:{'|'.join(sections)})\.\w+)[=`]", PAGE))
    assert named <= keys and len(named) >= 12
    assert {key for key in keys if key.startswith("fsdp.")} <= named


def test_the_settings_that_go_along_over_ssh_are_those_of_cmd_sh():
    kept = re.search(r"=~ \^\((.*?)\)\$ ", (ROOT / "egs" / "cmd.sh").read_text())[1].replace(".*", "*").split("|")
    said = re.search(r"so these go along: (.*?)\.", PAGE.replace("\n", " "))[1]
    assert re.findall(r"`([A-Z_*]+)`", said) == kept
