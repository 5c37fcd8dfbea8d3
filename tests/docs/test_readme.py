"""README.md: its order and length, its results, its plugin and its Python lines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import soundfile
import tiny
import torch
from fresh_plugins import fresh_plugins
from pages import ROOT, blocks, commands, kind, read

from arkasr import cli
from arkasr.distributions.views import DenseView, HeadView
from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE, Support
from arkasr.model.generation import generate
from arkasr.plugins import registry
from arkasr.transcription.recognizer import Recognizer

README = read("README.md")
COMMANDS = commands(README)
SECTIONS = [
    "Results",
    "Installation",
    "The two commands",
    "Transcribe",
    "Stages and options",
    "Your own audio",
    "A plugin",
    "The paper's scale",
    "Documentation",
    "Citation and licence",
]


def test_readme_has_at_most_180_lines():
    assert len(README.splitlines()) <= 180


def test_readme_sections_are_in_order():
    assert re.findall(r"^## (.+)$", README, re.M) == SECTIONS


def test_readme_introduction_has_at_most_5_lines_of_text():
    introduction = README.split("## Results")[0].split("\n", 1)[1]
    assert len([line for line in introduction.splitlines() if line]) <= 5


def test_readme_starts_with_the_two_commands():
    assert [words[:2] for words in COMMANDS[:2]] == [["make", "demo"], ["make", "test"]]


def test_readme_marks_its_results():
    assert re.search(r"^<!-- results:begin -->\n.*^<!-- results:end -->$", README, re.M | re.S)


def test_readme_results_are_those_of_the_recipe():
    table = README.split("<!-- results:begin -->")[1].split("<!-- results:end -->")[0]
    rates = re.findall(r"\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]", table)
    results = read("egs/librispeech/RESULTS.md")
    assert len(rates) == 10 and [rate for rate in rates if rate not in results] == []


def test_readme_names_every_verb(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    verbs = re.findall(r"^  (\w+) +\S", capsys.readouterr().out.split("verbs:")[1], re.M)
    assert len(verbs) >= 7
    assert [verb for verb in verbs if f"arkasr {verb}" not in README] == []


@pytest.mark.parametrize("page", ["README.md", "docs/recipes.md"])
def test_stages_match_recipe_help(page):
    done = subprocess.run([ROOT / "egs/librispeech/run.sh", "--help"], capture_output=True, text=True, check=True)
    stages = re.search(r"^Stages (.*?)^ +--stage", done.stdout, re.M | re.S)[1]
    rows = re.findall(r"^\| (\d) \| `arkasr (\w+)` \|", read(page), re.M)
    assert rows == re.findall(r"\b(\d) (\w+)", stages)


@pytest.fixture
def installed(tmp_path, monkeypatch) -> dict:
    """Install the README's plugin as pip would lay it out, and return its [project] table."""
    project = tomllib.loads(blocks(README, "toml")[0])["project"]
    ((entry, module),) = project["entry-points"]["arkasr"].items()
    (tmp_path / f"{module}.py").write_text(next(text for text in blocks(README, "python") if "register_losses" in text))
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[arkasr]\n{entry} = {module}\n")
    for name in ("ARKASR_PLUGINS", "ARKASR_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, ROOT))))
    with fresh_plugins(module):
        yield project


def test_readme_plugin_has_one_name_throughout(installed):
    name = installed["name"]
    assert {words[-1] for words in COMMANDS if kind(words) == "pip"} == {name}
    ((entry, module),) = installed["entry-points"]["arkasr"].items()
    assert f"`{name}/{module}.py`" in README and f"`{name}/pyproject.toml`" in README
    assert any(f"loss.name={entry}" in words for words in COMMANDS)


def test_readme_plugin_has_at_most_20_lines():
    (plugin,) = (text for text in blocks(README, "python") if "register_losses" in text)
    assert len([line for line in plugin.splitlines() if line]) <= 20


def test_readme_plugin_is_listed(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "arkasr", "plugins", "--json"], capture_output=True, text=True, check=True
    )
    (row,) = (row for row in json.loads(done.stdout) if row["distribution"] == installed["name"])
    assert row == {
        "kind": "loss",
        "name": "union_reverse_kl",
        "distribution": "arkasr-reverse-kl",
        "version": "0.1",
        "file": str(tmp_path / "arkasr_reverse_kl.py"),
        "error": "",
    }


def case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, DenseView, Support]:
    """Return student states, head, blocked ids, teacher and support. Two rows are odd: a blocked id, a single token."""
    draw = torch.Generator().manual_seed(0)
    states, head = torch.randn(5, 6, generator=draw), torch.randn(9, 6, generator=draw)
    teacher = DenseView(torch.randn(5, 12, generator=draw))
    student_ids = torch.stack([torch.randperm(9, generator=draw)[:4] for _ in range(5)])
    teacher_ids = torch.stack([torch.randperm(12, generator=draw)[:4] for _ in range(5)])
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    blocked = torch.zeros(9, dtype=torch.bool)
    blocked[student_ids[4, 2]] = True
    visited = (student_ids[:, 0], teacher_ids[:, 0])
    return states, head, blocked, teacher, Support(student_ids, teacher_ids, valid, valid, valid, *visited)


def reference_reverse_kl(states, head, blocked, teacher, support) -> tuple[float, int]:
    """Compute KL(p_S || p_T) position by position in float64."""
    total, count = 0.0, 0
    for row in range(len(states)):
        pairs = zip(support.student_ids[row].tolist(), support.teacher_ids[row].tolist(), support.valid[row].tolist())
        pairs = [(s, t) for s, t, valid in pairs if valid and not blocked[s]]
        if len(pairs) >= 2:
            z_s = torch.stack([states[row].double() @ head[s].double() for s, _ in pairs])
            z_t = torch.stack([teacher.logits[row, t].double() for _, t in pairs])
            log_p_s, log_p_t = z_s.log_softmax(0), z_t.log_softmax(0)
            total, count = total + float((log_p_s.exp() * (log_p_s - log_p_t)).sum()), count + 1
    return total, count


def test_readme_plugin_computes_the_reverse_kl(installed):
    states, head, blocked, teacher, support = case()
    states.requires_grad_()
    total, count = registry.create("loss", "union_reverse_kl", {})(HeadView(states, head, blocked), teacher, support)
    value, number = reference_reverse_kl(states.detach(), head, blocked, teacher, support)
    assert number == 4 and int(count) == number
    assert float(total.detach()) == pytest.approx(value, rel=1e-5) and value > 0
    total.backward()
    assert bool(states.grad.isfinite().all()) and bool((states.grad[0] != 0).any()) and not bool(states.grad[2].any())


def test_readme_plugin_accepts_no_options(installed):
    with pytest.raises(UserError, match="takes no options"):
        registry.create("loss", "union_reverse_kl", {"temperature": 2.0})


def printed(lines: str, model: Path, folder: Path) -> list[str]:
    """Run lines of a page with a model on two clips in a folder, and return what they print."""
    lines, number = re.subn(r'^path = ".*?"', f'path = "{model}"', lines, flags=re.M)
    assert number == 1
    for name, clip in zip(("first", "second"), CLIPS):
        soundfile.write(folder / f"{name}.wav", clip.numpy(), SAMPLE_RATE, subtype="FLOAT")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


CLIPS = [tiny.waveform(9000, 3), tiny.waveform(16000, 4)]


@pytest.mark.slow
def test_readme_lines_transcribe_like_the_recognizer(trained, tmp_path):
    (lines,) = [text for text in blocks(README, "python") if "arkasr.transcribe" in text]
    texts = Recognizer.load(str(trained / "base" / "final"), device="cpu").transcribe(CLIPS, ["English"] * 2)
    assert all(text and text.stopped for text in texts)
    assert printed(lines, trained / "base" / "final", tmp_path) == [str([str(text) for text in texts]), texts[0]]


@pytest.mark.slow
def test_lines_of_the_start_page_transcribe_like_generate(tmp_path):
    """The lines run on a folder in the published layout with random weights."""
    lm = tiny.student()
    lm.save(tmp_path / "model", save_original_format=True)
    (tmp_path / "model" / "generation_config.json").unlink()  # the published one suppresses nothing
    (lines,) = [text for text in blocks(read("docs/getting_started.md"), "python") if "apply_transcription" in text]
    lines = lines.replace("generate(**inputs)", "generate(**inputs, max_new_tokens=20)")
    with torch.no_grad():
        generation = generate(lm, lm.embed_prompts(lm.encode_audio(CLIPS), ["English"] * 2), [20, 20])
    expected = [lm.tokenizer.decode(ids, skip_special_tokens=True) for ids in generation.ids]
    assert printed(lines, tmp_path / "model", tmp_path) == [str(expected)]
