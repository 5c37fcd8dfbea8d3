"""README.md keeps its word: its commands are accepted, its paths and links lead somewhere, and its plugin works."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import soundfile
import tiny
import torch

from arkasr import cli
from arkasr.config.load import __doc__, load_config
from arkasr.distributions.views import DenseView, HeadView
from arkasr.errors import UserError
from arkasr.interfaces import Support
from arkasr.model.generation import generate
from arkasr.plugins import registry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KINDS = {"make", "run.sh", "arkasr", "pip", "cp", "sed"}
CACHES = {"__pycache__", "build", "dist"}


def blocks(*languages: str, within: str = README) -> list[str]:
    """Return the fenced blocks in these languages."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", within, re.M | re.S)
    return [text for language, text in fenced if language in languages]


def section(title: str) -> str:
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.M | re.S)[1]


def commands(text: str) -> list[list[str]]:
    """Split a shell block into commands, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = [words for block in blocks("sh", "bash") for words in commands(block)]


def kind(words: list[str]) -> str:
    return Path(words[0]).name


def of_kind(name: str) -> list:
    return [pytest.param(words, id=" ".join(words)) for words in COMMANDS if kind(words) == name]


def option(words: list[str], name: str, default: str = "") -> str:
    return words[words.index(name) + 1] if name in words else default


def test_every_command_is_of_a_kind_that_is_tested_here():
    assert {kind(words) for words in COMMANDS} == KINDS
    assert len(COMMANDS) >= 15


def test_the_two_commands_come_first():
    assert [words[:2] for words in COMMANDS[:2]] == [["make", "demo"], ["make", "test"]]


@pytest.mark.parametrize("words", of_kind("make"))
def test_make_targets_exist(words):
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the recipes in which the README's cp and sed commands have been run."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "egs", root / "egs", ignore=shutil.ignore_patterns("data", "exp", "downloads"))
    for words in COMMANDS:
        if kind(words) in ("cp", "sed"):
            subprocess.run(words, cwd=root, check=True)
    return root


@pytest.mark.parametrize("words", of_kind("run.sh"))
def test_recipe_commands_are_accepted(words, checkout):
    dry = [] if {"--help", "--dry_run"} & set(words) else ["--dry_run", "true"]
    done = subprocess.run([*words, *dry], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--help" in words or "Dry run: nothing was run" in done.stdout


def test_a_recipe_of_ones_own_works_in_its_own_folder(checkout):
    (words,) = (words for words in COMMANDS if words[0] == "egs/mycorpus/run.sh")
    done = subprocess.run([*words, "--dry_run", "true"], cwd=checkout, capture_output=True, text=True)
    assert f"\ncd {checkout}/egs/mycorpus\n" in done.stdout


def test_the_24_worker_line_starts_8_processes_on_each_of_3_machines(checkout):
    (words,) = (words for words in COMMANDS if "--num_nodes" in words)
    done = subprocess.run([*words, "--dry_run", "true"], cwd=checkout, capture_output=True, text=True)
    assert "--nnodes 3 --nproc-per-node 8 --node-rank 0 --master-addr node0" in done.stdout


@pytest.mark.parametrize("words", of_kind("arkasr"))
def test_verbs_and_their_options_are_accepted(words):
    assert cli.parse(words[1:])[0] == words[1]


def overridden() -> list:
    """Return (conf, run, overrides) of every command that overrides keys."""
    found = []
    for words in COMMANDS:
        if kind(words) == "run.sh" and "--train_args" in words:
            conf = ROOT / Path(words[0]).parent / "conf" / f"{option(words, '--scale', 'mini')}.yaml"
            runs = option(words, "--variants").split()
            found += [(conf, run, option(words, "--train_args").split()) for run in runs]
        elif words[:2] == ["arkasr", "train"]:
            args = cli.parse(words[1:])[1]
            found.append((ROOT / args.conf, args.run, args.overrides))
    return found


@pytest.mark.parametrize(("conf", "run", "overrides"), overridden())
def test_overridden_keys_are_in_the_schema(conf, run, overrides):
    assert overrides and load_config(conf, run, "e", "d", overrides) != load_config(conf, run, "e", "d")


def test_every_verb_is_named(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    verbs = re.findall(r"^  (\w+) +\S", capsys.readouterr().out.split("verbs:")[1], re.M)
    assert len(verbs) >= 7
    assert [verb for verb in verbs if f"arkasr {verb}" not in README] == []


def test_the_stages_are_those_of_the_recipe():
    done = subprocess.run([ROOT / "egs/librispeech/run.sh", "--help"], capture_output=True, text=True, check=True)
    line = re.search(r"^Stages: (.*)$", done.stdout, re.M)[1]
    assert re.findall(r"^\| (\d) \| `arkasr (\w+)` \|", section("Stages"), re.M) == re.findall(r"\b(\d) (\w+)", line)


def tree() -> list[tuple[list[str], str]]:
    """Return the lines of the annotated tree: paths relative to the root, and what is said of them."""
    lines, above = [], {0: ""}
    for line in blocks("text", within=section("What lies where"))[0].splitlines():
        indent, names, said = re.fullmatch(r"( *)(\S+(?: \S+)*)(?:  +(.+))?", line).groups()
        paths = [above[len(indent)] + name for name in names.split()]
        above[len(indent) + 2] = paths[-1]
        lines.append((paths, said or ""))
    return lines


@pytest.mark.parametrize(("paths", "said"), tree())
def test_the_tree_names_what_is_there(paths, said):
    for path in paths:
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path
    if paths[0].endswith("/"):
        for name in re.findall(r"\b\w+\.(?:py|yaml|sh)\b", said.replace("egs/conf", "")):
            assert (ROOT / paths[0] / name).is_file(), name


def written_by_hand(path: Path) -> bool:
    """Tell whether a file is source, configuration or prose, or a folder holds such."""
    if path.name.startswith(".") or path.name in CACHES:
        return False
    return any(map(written_by_hand, path.iterdir())) if path.is_dir() else path.suffix in (".py", ".sh", ".yaml", ".md")


@pytest.mark.parametrize("folder", ["", "arkasr", "egs", "docs"])
def test_the_tree_leaves_nothing_out(folder):
    named = {ROOT / path for paths, _ in tree() for path in paths} | {ROOT / "README.md"}
    missing = [path for path in (ROOT / folder).iterdir() if written_by_hand(path) and path not in named]
    assert missing == [], "add them to README.md's tree"


def slugs(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def local_links() -> list:
    links = [
        (page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    ]
    return [pytest.param(*pair, id=f"{pair[0].name}:{pair[1]}") for pair in links if "://" not in pair[1]]


@pytest.mark.parametrize(("page", "link"), local_links())
def test_local_links_lead_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    assert target.exists() and (not anchor or anchor in slugs(target))


def test_paths_in_the_text_exist():
    names = re.findall(r"`((?:arkasr|egs|tests|docs)/[\w./-]+)`", README)
    assert len(names) >= 4
    assert [name for name in names if not (ROOT / name).exists() and "/exp/" not in name] == []


def test_precedence_is_said_as_the_loader_says_it():
    said = re.search(r"Precedence, said once: (.+?)\.\n", __doc__)[1]
    assert said in " ".join(README.split())


def test_the_results_have_their_marks():
    assert re.search(r"^<!-- results:begin -->\n.*^<!-- results:end -->$", README, re.M | re.S)


@pytest.fixture
def installed(tmp_path, monkeypatch) -> dict:
    """Install the README's plugin as pip would lay it out, and return its [project] table."""
    project = tomllib.loads(blocks("toml")[0])["project"]
    ((entry, module),) = project["entry-points"]["arkasr"].items()
    (tmp_path / f"{module}.py").write_text(next(text for text in blocks("python") if "register_losses" in text))
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[arkasr]\n{entry} = {module}\n")
    for name in ("ARKASR_PLUGINS", "ARKASR_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, ROOT))))
    importlib.invalidate_caches()
    registry._load.cache_clear()
    yield project
    registry._load.cache_clear()
    sys.modules.pop(module, None)


def test_the_plugin_is_named_alike_in_text_package_and_commands(installed):
    name = installed["name"]
    assert {words[-1] for words in COMMANDS if kind(words) == "pip"} == {name}
    ((entry, module),) = installed["entry-points"]["arkasr"].items()
    assert f"`{name}/{module}.py`" in README and f"`{name}/pyproject.toml`" in README
    assert any(f"loss.name={entry}" in words for words in COMMANDS)


def test_the_plugin_is_listed(installed, tmp_path):
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
    """Return student states and head, blocked ids, a teacher and a support with odd rows: one blocked id, one too thin."""
    draw = torch.Generator().manual_seed(0)
    states, head = torch.randn(5, 6, generator=draw), torch.randn(9, 6, generator=draw)
    teacher = DenseView(torch.randn(5, 12, generator=draw))
    student_ids = torch.stack([torch.randperm(9, generator=draw)[:4] for _ in range(5)])
    teacher_ids = torch.stack([torch.randperm(12, generator=draw)[:4] for _ in range(5)])
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    blocked = torch.zeros(9, dtype=torch.bool)
    blocked[student_ids[4, 2]] = True
    seen = (student_ids[:, 0], teacher_ids[:, 0])
    return states, head, blocked, teacher, Support(student_ids, teacher_ids, valid, valid, valid, *seen)


def expected(states, head, blocked, teacher, support, tau: float) -> tuple[float, int]:
    """Compute the reverse KL position by position in float64."""
    total, count = 0.0, 0
    for row in range(len(states)):
        pairs = zip(support.student_ids[row].tolist(), support.teacher_ids[row].tolist(), support.valid[row].tolist())
        pairs = [(s, t) for s, t, good in pairs if good and not blocked[s]]
        if len(pairs) >= 2:
            ours = [(states[row].double() @ head[s].double()) / tau for s, _ in pairs]
            theirs = [teacher.logits[row, t].double() / tau for _, t in pairs]
            q, p = torch.stack(ours).log_softmax(0), torch.stack(theirs).log_softmax(0)
            total, count = total + tau**2 * float((q.exp() * (q - p)).sum()), count + 1
    return total, count


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_the_plugin_computes_the_reverse_kl(installed, tau):
    states, head, blocked, teacher, support = case()
    states.requires_grad_()
    total, count = registry.create("loss", "union_reverse_kl", {"temperature": tau})(
        HeadView(states, head, blocked), teacher, support
    )
    value, number = expected(states.detach(), head, blocked, teacher, support, tau)
    assert number == 4 and int(count) == number
    assert float(total.detach()) == pytest.approx(value, rel=1e-5) and value > 0
    total.backward()
    assert bool(states.grad.isfinite().all()) and bool((states.grad[0] != 0).any()) and not bool(states.grad[2].any())


def test_the_options_of_the_plugin_are_checked(installed):
    with pytest.raises(UserError, match="temprature.*temperature"):
        registry.create("loss", "union_reverse_kl", {"temprature": 2.0})


def test_the_snippet_for_a_published_checkpoint_transcribes(tmp_path, capsys):
    """In the working order of a newcomer, on a folder in the published layout with random weights."""
    lm = tiny.student()
    lm.save(tmp_path / "model", save_original_format=True)
    (tmp_path / "model" / "generation_config.json").unlink()  # the published one suppresses nothing
    clips = [tiny.waveform(9000, 3), tiny.waveform(16000, 4)]
    for name, clip in zip(("first", "second"), clips):
        soundfile.write(tmp_path / f"{name}.wav", clip.numpy(), 16000, subtype="FLOAT")
    (snippet,) = [text for text in blocks("python") if "AutoProcessor" in text]
    snippet = snippet.replace("AutoArk-AI/ARK-ASR-0.6B", str(tmp_path / "model")).replace(
        "torch.bfloat16", "torch.float32"
    )
    snippet = snippet.replace("max_new_tokens=256", "max_new_tokens=20")
    words = [sys.executable, "-c", snippet]
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        made = generate(lm, lm.embed_prompts(lm.encode_audio(clips), ["English"] * 2), [20, 20])
    assert done.stdout.strip() == str([lm.tokenizer.decode(ids, skip_special_tokens=True) for ids in made.ids])
