"""The recipe for your own audio, by the commands of docs/own_audio.md, on ten made-up clips in each input format."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lhotse import CutSet, Recording, SupervisionSegment
from own_audio import FORMATS, clips, jsonl
from pages import ROOT, blocks, commands, option, read, section
from recipes import commands as dry_commands
from tiny_recipe import FINETUNE, OVERLAY

from arkasr.cli import main
from arkasr.config.validate import kinds_of
from arkasr.corpora.corpus import Corpus, read_corpus_yaml
from arkasr.corpora.scale import Scale

PAGE = read("docs/own_audio.md")
COPY, PREPARE = commands(section(PAGE, "Start"))[:2], commands(section(PAGE, "Start"))[-1]
(YAML,) = blocks(section(PAGE, "Start"), "yaml")
IN_GIT = [
    *(f"conf/{name}.yaml" for name in ("finetune", "mini", "paper", "real", "sweeps/real")),
    "corpus.yaml",
    "run.sh",
]
OWN = ROOT / "egs" / "own"


def make_checkout(folder: Path) -> Path:
    outputs = shutil.ignore_patterns("data", "exp", "downloads")
    shutil.copytree(ROOT / "egs", folder / "egs", ignore=outputs)
    for words in COPY:
        subprocess.run(words, cwd=folder, check=True)
    (folder / "egs" / "calls" / "corpus.yaml").write_text(YAML)
    return folder


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the recipes in which the page's recipe `calls` was made, with the corpus.yaml of the page."""
    return make_checkout(tmp_path)


def start(
    checkout: Path, words: list[str], *more: str, python: str | Path = sys.executable
) -> subprocess.CompletedProcess:
    """Run a command of the page with the checkout's folders."""
    words = [str(checkout / "calls") if word == "/data/calls" else word for word in words]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*words, "--python", python, *more]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def prepare_words(tmp_path_factory) -> list[str]:
    """The command of stage 1 that the page's run.sh runs, for the folder CHECKOUT."""
    root = tmp_path_factory.mktemp("dry")
    make_checkout(root)
    (words,) = dry_commands(start(root, PREPARE, "--dry_run", "true"))
    words = words[words.index("prepare") :]
    return [word.replace(str(root), "CHECKOUT") for word in words]


def prepare(checkout: Path, words: list[str], corpus: str = "calls") -> None:
    """Run the command of stage 1 in this process, which is faster than run.sh."""
    words = [word.replace("CHECKOUT/calls", "CORPUS").replace("CORPUS", str(checkout / corpus)) for word in words]
    with contextlib.chdir(checkout / "egs" / "calls"):
        assert main(words) == 0


def facts(checkout: Path, tag: str = "paper-calls") -> dict:
    return json.loads((checkout / "egs" / "calls" / "data" / tag / "corpus.json").read_text())


def lhotse(root: Path) -> Path:
    jsonl(root)
    for part in ("train", "dev", "test"):
        found = [clip for clip in clips() if clip.part == part]
        cuts = [Recording.from_file(root / "wavs" / f"{clip.name}.wav").to_cut() for clip in found]
        for cut, clip in zip(cuts, found):
            cut.supervisions = [SupervisionSegment(clip.name, clip.name, 0.0, cut.duration, text=clip.text)]
        CutSet.from_cuts(cuts).to_file(root / f"{part}.jsonl.gz")
        (root / f"{part}.jsonl").unlink()
    return root


def hugging_face(root: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    table = jsonl(root.with_name("table"))
    parts = {part: [clip for clip in clips() if clip.part == part] for part in ("train", "dev", "test")}
    splits = {
        part: datasets.Dataset.from_dict(
            {"audio": [str(table / "wavs" / f"{clip.name}.wav") for clip in found], "text": [c.text for c in found]}
        ).cast_column("audio", datasets.Audio(decode=False))
        for part, found in parts.items()
    }
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return root


WRITERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    **FORMATS,
    "lhotse": (lhotse, "lhotse"),
    "hf": (hugging_face, "hf"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_start_of_the_page_prepares_every_format(checkout, prepare_words, name, capsys):
    write, layout = WRITERS[name]
    write(checkout / "calls")
    path = checkout / "egs" / "calls" / "corpus.yaml"
    path.write_text(YAML.replace("layout: jsonl", f"layout: {layout}"))
    prepare(checkout, prepare_words)
    found = facts(checkout)
    counts = {key: each["cuts"] for key, each in found["sets"].items()}
    assert counts == {"train": 6, "base": 6, "td": 6, "opd": 6, "dev": 2, "test": 2}
    assert found["name"] == "calls" and not any(each["dropped"] for each in found["sets"].values())


def test_folder_under_version_control_holds_the_recipe_only():
    done = subprocess.run(["git", "ls-files"], cwd=OWN, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    assert sorted(done.stdout.split()) == IN_GIT
    assert read(".gitignore").count("/egs/*/") == 3 and not (OWN / "RESULTS.md").exists()


def test_corpus_yaml_shows_every_key_with_its_default(tmp_path):
    text = (OWN / "corpus.yaml").read_text()
    shown = set(re.findall(r"^(?:# )?(\w+): ", text, re.M)) | set(re.findall(r"^# (scales|use):", text, re.M))
    assert {*kinds_of(Corpus), *kinds_of(Scale)} - shown == {"obtain", "miniature"}  # of published corpora
    uncommented = re.sub(
        r"^# (?=(?:train|dev|test|left_out|use|split_seed|m\w+_seconds|text_case|channels): )", "", text, flags=re.M
    )
    (tmp_path / "corpus.yaml").write_text(uncommented)
    defaults = read_corpus_yaml(OWN / "corpus.yaml").scale("mini")
    assert uncommented != text and read_corpus_yaml(tmp_path / "corpus.yaml").scale("mini") == defaults


def test_a_failed_first_start_does_not_lock_its_folders(checkout, prepare_words, capsys):
    (checkout / "wrong" / "calls").mkdir(parents=True)
    (checkout / "wrong" / "calls" / "train.jsonl").write_text('{"audio": "nowhere.wav", "text": "a"}\n')
    with contextlib.chdir(checkout / "egs" / "calls"):
        assert main([word.replace("CHECKOUT", str(checkout / "wrong")) for word in prepare_words]) == 2
    assert "part train: none of its 1 utterances can be used" in capsys.readouterr().err
    jsonl(checkout / "calls")
    prepare(checkout, prepare_words)
    assert facts(checkout)["corpus_dir"] == str(checkout / "calls")


@pytest.mark.slow
def test_corpora_in_folders_of_one_name_do_not_share_data(checkout, prepare_words, capsys):
    jsonl(checkout / "calls")
    prepare(checkout, prepare_words)
    jsonl(checkout / "other" / "calls")
    with contextlib.chdir(checkout / "egs" / "calls"):
        assert main([word.replace("CHECKOUT", str(checkout / "other")) for word in prepare_words]) == 2
    assert "use another --datadir and --expdir" in capsys.readouterr().err
    words = [str(checkout / "other" / "calls") if word == "/data/calls" else word for word in PREPARE]
    done = start(checkout, words, "--stage", "3", "--stop_stage", "3")
    assert done.returncode == 2 and "set --datadir and --expdir to other folders" in done.stderr


@pytest.mark.e2e
def test_all_stages_train_on_audio_with_some_transcripts(checkout, forked_stages):
    jsonl(checkout / "calls", untranscribed=3)
    conf = checkout / "egs" / "calls" / "conf" / "mini.yaml"
    (data,) = (line for line in conf.read_text().splitlines(keepends=True) if "data: " in line)
    overlay = OVERLAY.replace("BASE_STEPS", "3").replace("steps: 20", "steps: 3")  # the tiny teacher learns no end
    conf.write_text(overlay.replace("  teacher:\n", f"  teacher:\n{data}"))
    words = commands(section(PAGE, "Train from scratch"))[-1]
    assert option(words, "--scale") == "mini"
    done = start(checkout, words, "--variants", "base base_opd", python=forked_stages)
    assert done.returncode == 0, done.stdout + done.stderr
    exp = checkout / "egs" / "calls" / "exp" / "mini-calls"
    runs = ["base", "base_opd"]
    assert all(set(json.loads((exp / run / "scores.json").read_text())["sets"]) == {"test"} for run in runs)
    seen = {run: json.loads((exp / run / "run.json").read_text())["inputs"]["data"]["path"] for run in runs}
    assert seen["base"].endswith("base.jsonl.gz") and seen["base_opd"].endswith("opd.jsonl.gz")
    assert facts(checkout, "mini-calls")["uses"]["opd"]["cuts"] == 6
    assert re.search(r"\| opd +\| all +\| .*\| 6 +\| 3 +\|", (exp / "RESULTS.md").read_text())


@pytest.mark.e2e
def test_untranscribed_audio_alone_is_distilled_from_a_checkpoint(checkout, trained, forked_stages):
    jsonl(checkout / "calls", untranscribed=6)
    (checkout / "calls" / "dev.jsonl").unlink()
    conf = checkout / "egs" / "calls" / "conf" / "finetune.yaml"
    conf.write_text(FINETUNE.format(conf="../../conf/finetune.yaml", trained=trained))
    (words,) = commands(section(PAGE, "Fine-tune a published model"))
    done = start(checkout, words, python=forked_stages)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the corpus has no dev set, so the dev error rate is not measured" in done.stdout
    uses = facts(checkout)["uses"]
    assert [uses[key]["cuts"] for key in ("base", "td", "opd")] == [0, 6, 6]
    exp = checkout / "egs" / "calls" / "exp" / "paper-calls"
    for run in ("base", "base_opd"):
        assert set(json.loads((exp / run / "scores.json").read_text())["sets"]) == {"test"}
