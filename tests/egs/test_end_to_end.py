"""The three recipes through their own run.sh, on a few synthesised sentences and with tiny models.

The recipes are copied with a smaller corpus and a configuration of tiny models. Nothing else is changed. Most
stages do not import the packages anew (see `loaded_python`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_recipe import OVERLAY

from arkasr.model.loading import load_speech_lm

pytestmark = pytest.mark.e2e

pytest.importorskip("espeakng_loader")

ROOT = Path(__file__).parents[2]
SIZES = {
    "librispeech": "{train-clean-5: 24, dev-clean-2: 4, test-clean: 6, test-other: 6}",
    "aishell": "{train: 20, dev: 4, test: 6}",
    "wenetspeech": "{L: 20, M: 6, S: 4, DEV: 4, TEST_NET: 6, TEST_MEETING: 6}",
}
# Files that stage 5 and the check of a finished run write again.
WRITTEN_AGAIN = re.compile(r"\.arkasr\.lock|\.lock\.0|config\.yaml|scores\.json|RESULTS\.md|.*\.png|tensorboard")
Recipe = Callable[..., str]


@pytest.fixture
def recipe(request, tmp_path) -> Recipe:
    """Return a function that runs a copied recipe and returns its output. `recipe.start` does not wait for its end."""
    corpus, base_steps = request.param
    egs, outputs = tmp_path / "egs", shutil.ignore_patterns("data", "exp", "downloads")
    shutil.copytree(ROOT / "egs", egs, ignore=outputs)
    description = egs / corpus / "corpus.yaml"
    text = re.sub(r"^  sizes: .*", f"  sizes: {SIZES[corpus]}", description.read_text(), count=1, flags=re.M)
    description.write_text(text)
    (egs / corpus / "conf" / "mini.yaml").write_text(OVERLAY.replace("BASE_STEPS", str(base_steps)))
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def start(*words: str) -> subprocess.Popen:
        command = [egs / corpus / "run.sh", "--python", run.python, *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=env, cwd=tmp_path, start_new_session=True, **pipes)

    def run(*words: str) -> str:
        process = start(*words)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return output

    run.start, run.folder, run.python = start, egs / corpus, sys.executable
    return run


def files(folder: Path) -> dict[str, int]:
    """Return the time of writing of each file that a second run must keep."""
    kept = (p for p in folder.rglob("*") if p.is_file() and not any(WRITTEN_AGAIN.fullmatch(q) for q in p.parts))
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in kept}


def check_results(folder: Path, runs: list[str], test_sets: list[str], metric: str) -> None:
    """Check the outputs of stage 5: scores, tables and figures."""
    exp = folder / "exp" / "mini"
    corpus = json.loads((folder / "data" / "mini" / "corpus.json").read_text())
    assert corpus["test_sets"] == test_sets and corpus["profiles"][0] == "unicode"
    for run in runs:
        scores = json.loads((exp / run / "scores.json").read_text())
        assert list(scores["sets"]) == test_sets
        assert {entry["metric"] for entry in scores["sets"].values()} == {metric}
        for name, result in scores["sets"].items():
            assert result["utterances"] == corpus["sets"][name]["cuts"] == 6 and result["missing_hypotheses"] == 0
            assert result["rate_percent"] > 0
            assert len((exp / run / "decode" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    results = (exp / "RESULTS.md").read_text()
    assert "## Table 1" in results and all(f"{name} {metric.upper()}" in results for name in test_sets)
    assert "arkasr train conf/mini.yaml --run base " in results
    figures = list((exp / "figures").glob("*.png"))
    assert len(figures) >= 2 and all(path.read_bytes().startswith(b"\x89PNG") for path in figures)
    page = (exp / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio") >= len(test_sets) and all(f"<h3>{name}</h3>" in page for name in test_sets)


@pytest.mark.parametrize("recipe", [("librispeech", 4)], indirect=True)
def test_librispeech_stages_0_to_6_and_a_second_run(recipe, forked_stages):
    recipe.python = forked_stages
    output = recipe()
    runs = ["teacher", "base", "base_opd", "base_td_opd"]
    check_results(recipe.folder, runs, ["test-clean", "test-other"], "wer")
    assert f"Results: {recipe.folder}/exp/mini/RESULTS.md" in output and "Successfully finished" in output
    data, exp = recipe.folder / "data" / "mini", recipe.folder / "exp" / "mini"
    sets = json.loads((data / "corpus.json").read_text())["sets"]
    assert sets["train"]["cuts"] == 24 and sets["dev"]["cuts"] == 4
    assert (exp / "td_teacher.jsonl.gz").is_file()
    results = (exp / "RESULTS.md").read_text()
    assert all(title in results for title in ("## Table 2", "Before TD", "After TD", "Base+TD+OPD", "paper"))
    for run in ("base_opd", "base_td_opd"):
        rows = [json.loads(line) for line in (exp / run / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2, 3] and all("vuss" in row for row in rows)

    recipe("--stage", "6", "--stop_stage", "6", "--variants", "base_opd")
    card = (exp / "base_opd" / "export" / "README.md").read_text()
    assert load_speech_lm(str(exp / "base_opd" / "export")).hf.config.model_type == "arkasr"
    assert "synthetic voices" in card.lower() and "egs/librispeech/run.sh" in card and str(recipe.folder) not in card
    assert not (exp / "base" / "export").exists() and not (exp / "teacher" / "export").exists()

    before = files(recipe.folder)
    assert any(name.endswith(".flac") for name in before) and len(before) > 80
    output = recipe("--variants", "base_td", "--stop_stage", "3")  # half of the runs cover all stages
    assert files(recipe.folder) == before
    assert output.count("already trained; nothing to do") == 3
    for message in ("already exists", "is already prepared", "td_teacher.jsonl.gz: already exists"):
        assert message in output

    words = ["--checkpoint", f"old={exp}/base_opd/export", "--test_sets", f"again={data}", "--variants", "base"]
    recipe("--stage", "4", "--skip_train", "true", *words)
    sets = {run: json.loads((exp / run / "scores.json").read_text())["sets"] for run in ("base", "base_opd", "old")}
    further = ["again-test-clean", "again-test-other"]
    assert list(sets["base"]) == ["test-clean", "test-other", *further]
    assert list(sets["base_opd"]) == ["test-clean", "test-other"] and list(sets["old"]) == further
    for name in ("test-clean", "test-other"):
        assert sets["base"][f"again-{name}"]["rate_percent"] == sets["base"][name]["rate_percent"]
        assert sets["old"][f"again-{name}"]["rate_percent"] == sets["base_opd"][name]["rate_percent"]
    results = (exp / "RESULTS.md").read_text()
    assert "| old | - | - |" in results and "again-test-other WER" in results and "changed since" not in results


@pytest.mark.parametrize("recipe", [("aishell", 150)], indirect=True)
def test_aishell_resumes_after_being_killed_in_stage_3(recipe, forked_stages):
    words, real = ["--variants", "base base_opd"], recipe.python
    recipe.python = forked_stages
    recipe("--stop_stage", "2", *words)
    recipe.python = real  # whose ranks end with their recipe
    process = recipe.start("--stage", "3", *words)
    base = recipe.folder / "exp" / "mini" / "base"
    while not list(base.glob("checkpoints/step-*/COMPLETE")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (base / "final").exists()
    before = files(recipe.folder / "exp" / "mini" / "teacher")

    recipe.python = forked_stages
    output = recipe("--stage", "3", *words)
    resumed = re.search(r"resuming from \S+/step-\d+ \(step (\d+)\)", output)
    assert resumed and 0 < int(resumed[1]) < 150
    steps = [json.loads(line)["step"] for line in (base / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 151))
    after = files(recipe.folder / "exp" / "mini" / "teacher")
    assert before and {name: after[name] for name in before} == before
    check_results(recipe.folder, ["teacher", "base", "base_opd"], ["test"], "cer")


@pytest.mark.parametrize("recipe", [("wenetspeech", 4)], indirect=True)
def test_wenetspeech_stage_3_alone_runs_on_prepared_data_with_torchrun(recipe, forked_stages):
    """torchrun starts its ranks by the client of `loaded_python`. Those of test_launch.py import the packages anew."""
    recipe.python = forked_stages
    recipe("--stop_stage", "1")
    data = recipe.folder / "data" / "mini"
    before = files(data)
    assert {"base.jsonl.gz", "test-net.jsonl.gz", "corpus.json"} <= before.keys()
    output = recipe("--stage", "3", "--variants", "base", "--ngpu", "2")
    assert "Stage 3: Train base" in output and "Stage 1" not in output and "Stage 2" not in output
    assert files(data) == before
    check_results(recipe.folder, ["base"], ["test-net", "test-meeting"], "cer")
    record = json.loads((recipe.folder / "exp" / "mini" / "base" / "run.json").read_text())
    assert record["world_size"] == 2
