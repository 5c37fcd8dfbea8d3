"""The staged script: options, exact commands, and what happens when a stage fails or is interrupted."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from recipes import EGS, LOG_LINE, commands, gone, heed_signals, recipe, wait_until

CORPORA = ["librispeech", "aishell", "wenetspeech"]
STUB = """#!/usr/bin/env bash
[ "$3" != --version ] || { echo arkasr stub; exit; }
printf '%s\\n' "$PWD" "$*" >>"$STUB_LOG"
case "$*" in *"--run $STUB_AT "*) [ -z "$STUB_WAIT" ] || { exec sleep "$STUB_WAIT"; }; exit "$STUB_STATUS" ;; esac
[ "$3" != train ] || { mkdir -p "$8/$6/final" && touch "$8/$6/final/config.json"; }
"""


def dry(*words, **kwargs):
    return commands(recipe("--dry_run", "true", *words, **kwargs))


def logged(done):
    return [match.group(1) for match in map(LOG_LINE.match, done.stdout.splitlines()) if match]


def flag(command, name):
    return command[command.index(name) + 1]


def train_runs(lines):
    return [flag(line, "--run") for line in lines if "train" in line]


def verbs(lines):
    return [line[line.index("arkasr") + 1] for line in lines]


@pytest.mark.parametrize(
    "script", [EGS / "recipe.sh", EGS / "cmd.sh", EGS / "options.sh", *(EGS / c / "run.sh" for c in CORPORA)]
)
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("corpus", CORPORA)
def test_run_sh_is_a_few_lines_that_the_user_can_override(corpus):
    lines = (EGS / corpus / "run.sh").read_text().splitlines()
    assert len(lines) <= 6 and lines[-1].endswith(f'recipe.sh" --corpus {corpus} "$@"')
    assert os.access(EGS / corpus / "run.sh", os.X_OK) and os.access(EGS / "recipe.sh", os.X_OK)


def test_help_lists_every_option_with_its_default():
    shown = recipe("--help")
    assert shown.returncode == 0 and shown.stderr == ""
    table = re.search(r"^OPTIONS='(.*?)'$", (EGS / "recipe.sh").read_text(), re.M | re.S)[1]
    rows = [line.split("|") for line in table.splitlines()]
    assert len(rows) >= 18
    for name, _, default, text in rows:
        assert re.search(rf"^  --{name} +{re.escape(text)} \[{re.escape(default)}\]$", shown.stdout, re.M)
    assert max(map(len, shown.stdout.splitlines())) <= 120


@pytest.mark.parametrize("scale", ["mini", "paper"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_dry_run_prints_every_stage(corpus, scale):
    lines = dry("--scale", scale, corpus=corpus)
    teacher = ["train"] if scale == "mini" else []
    assert verbs(lines) == ["download", "prepare", *teacher, "label", *["train"] * 4, "decode", "score"]
    assert train_runs(lines)[len(teacher) :] == ["base", "base_opd", "base_td", "base_td_opd"]
    assert lines[0][2:] == ["download", "corpus.yaml", "--scale", scale, "--corpus_dir", f"downloads/{scale}"]
    for line in lines[2:]:
        assert flag(line, "--expdir") == f"exp/{scale}" and flag(line, "--datadir") == f"data/{scale}"
    for line in lines[-2:]:
        assert flag(line, "--runs") == "teacher base base_opd base_td_opd"


def test_dry_run_writes_nothing(tree, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert dry("--scale", "mini", egs=tree)
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_needs_no_arkasr(tree, tmp_path):
    nothing = tmp_path / "nothing"
    nothing.write_text("#!/bin/sh\nexit 1\n")
    nothing.chmod(0o755)
    done = recipe("--dry_run", "true", "--python", str(nothing), egs=tree)
    assert len(commands(done)) == 10


def test_24_workers_on_three_machines():
    words = ["--stage", "3", "--scale", "paper", "--ngpu", "8", "--num_nodes", "3", "--node_rank", "2"]
    words += ["--python", "python3"]
    lines = dry(*words, "--master_addr", "first", "--master_port", "1234")
    assert train_runs(lines) == ["base", "base_opd", "base_td", "base_td_opd"]
    assert verbs(lines) == ["train"] * 4  # the first machine decodes and scores
    assert lines[1] == shlex.split(
        "-m torch.distributed.run --nnodes 3 --nproc-per-node 8 --node-rank 2 --master-addr first --master-port 1234"
        " --max-restarts 3 --shutdown-timeout 120 --no-python --"
        " env MASTER_PORT=1235 TORCHELASTIC_USE_AGENT_STORE=False"
        " python3 -m arkasr train conf/paper.yaml --run base_opd --expdir exp/paper --datadir data/paper"
    )


def test_torchrun_reads_the_24_worker_line():
    run = pytest.importorskip("torch.distributed.run")
    line = dry("--stage", "3", "--stop_stage", "3", "--scale", "paper", "--ngpu", "8", "--num_nodes", "3")[0]
    config, command, words = run.config_from_args(run.parse_args(line[2:]))
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node) == (3, 3, 8)
    assert config.rdzv_backend == "static" and config.rdzv_configs["rank"] == 0
    assert (config.max_restarts, config.shutdown_timeout) == (3, 120)
    assert [command, *words] == line[line.index("--") + 1 :]


def test_several_processes_on_one_machine_and_one_without_torchrun():
    assert flag(dry("--stage", "3", "--ngpu", "2")[0], "--nproc-per-node") == "2"
    assert dry("--stage", "3", "--ngpu", "1")[0][:3] == ["-m", "arkasr", "train"]
    hidden = recipe("--dry_run", "true", "--stage", "3", "--ngpu", "0")
    assert "\nenv CUDA_VISIBLE_DEVICES= " in hidden.stdout


def test_stage_3_trains_decodes_and_scores():
    done = recipe("--stage", "3", "--dry_run", "true")
    assert verbs(commands(done)) == ["train"] * 4 + ["decode", "score"]
    assert [line[:7] for line in logged(done) if line.startswith("Stage")] == ["Stage 3"] * 4 + ["Stage 4", "Stage 5"]
    assert "Stage 3: Train base" in logged(done)


@pytest.mark.parametrize("stage", range(7))
def test_each_stage_alone(stage):
    expected = ["download"], ["prepare"], ["train", "label"], ["train"] * 4, ["decode"], ["score"], ["export"]
    assert verbs(dry("--stage", str(stage), "--stop_stage", str(stage))) == expected[stage]


def test_stage_6_runs_when_it_is_asked_for_and_exports_the_students():
    lines = dry("--stage", "5", "--stop_stage", "6")
    assert verbs(lines) == ["score", "export"]
    assert flag(lines[-1], "--runs") == "base base_opd base_td_opd" and flag(lines[-2], "--runs")[:8] == "teacher "
    assert flag(lines[-1], "--expdir") == "exp/mini" and flag(lines[-1], "--datadir") == "data/mini"
    assert verbs(dry("--stage", "5")) == ["score"]


@pytest.mark.parametrize(
    ("variants", "trained", "decoded"),
    [
        ("base", "base", "base"),
        ("base_opd", "teacher base base_opd", "teacher base_opd"),
        ("base_td", "teacher base base_td", "base_td"),
        ("base_td_opd base", "teacher base base_td base_td_opd", "teacher base_td_opd base"),
    ],
)
def test_variants_bring_what_they_start_from(variants, trained, decoded):
    lines = dry("--variants", variants)
    assert train_runs(lines) == trained.split()
    assert flag(lines[-1], "--runs") == decoded
    assert ("label" in verbs(lines)) == ("td" in variants)


def test_a_run_of_ones_own_needs_ones_own_configuration():
    assert "no run 'base_odp'" in recipe("--variants", "base_odp", "--dry_run", "true").stderr
    conf = str(EGS / "librispeech" / "conf" / "mini.yaml")
    assert "my_opd" in train_runs(dry("--variants", "base my_opd", "--conf", conf))


@pytest.mark.parametrize("words", ["--stop_stage 1", "--stop-stage 1", "--stop_stage=1", "--stop-stage=1"])
def test_dashes_underscores_and_equals_signs(words):
    assert verbs(dry(*words.split())) == ["download", "prepare"]


def test_the_last_value_wins():
    assert verbs(dry("--stage", "1", "--stage", "5")) == ["score"]


def test_paths_are_relative_to_the_user(tmp_path):
    lines = dry("--corpus_dir", "my corpus", "--expdir", "../out", cwd=tmp_path)
    assert verbs(lines)[0] == "prepare"
    assert flag(lines[0], "--corpus_dir") == str(tmp_path / "my corpus")
    assert flag(lines[0], "--datadir") == "data/mini-my corpus"
    assert flag(lines[-1], "--expdir") == str(tmp_path.parent / "out")


def test_overrides_reach_training_and_labelling_unchanged():
    lines = dry("--train_args", "a.b=1e-4 c=* d=$(date)")
    assert all(line[-3:] == ["a.b=1e-4", "c=*", "d=$(date)"] for line in lines[2:8])
    assert "a.b=1e-4" not in lines[-1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--stag", "3"], "unknown option --stag; did you mean --stage?"),
        (["--nodes", "3"], "did you mean --num_nodes?"),
        (["--zzzzzz", "3"], "unknown option --zzzzzz (--help lists all)"),
        (["--$(exit)", "3"], "unknown option"),
        (["--stage"], "--stage needs a value"),
        (["--stage", "--scale", "mini"], "--stage needs a value"),
        (["--stage", "two"], "--stage takes a whole number, not 'two'"),
        (["--nj", "0"], "--nj takes a number from 1 on"),
        (["--dry_run", "yes"], "--dry_run takes true or false, not 'yes'"),
        (["--scale", "huge"], "--scale takes mini or paper, not 'huge'"),
        (["--corpus_dir", ""], "--corpus_dir needs a value"),
        (["--variants", " "], "--variants names no run"),
        (["extra"], "stray argument 'extra'"),
        (["--variants", "base", "base_opd"], "stray argument 'base_opd'"),
        ([""], "stray argument ''"),
        (["--stage", "6"], "no stage lies between --stage 6 and --stop_stage 5"),
        (["--stage", "7", "--stop_stage", "7"], "stages go from 0 (download) to 6 (export)"),
        (["--stage", "3", "--stop_stage", "2"], "no stage lies between"),
        (["--stage", "0", "--stop_stage", "0", "--corpus_dir", "x", "--dry_run", "true"], "nothing to run"),
        (["--conf", "no.yaml"], "no configuration "),
        (["--corpus", "nowhere"], "no recipe 'nowhere'"),
        (["--corpus_dir", "no_such_folder", "--python", "true"], "no folder "),
        (["--num_nodes", "2", "--python", "true"], "needs --master_addr"),
        (["--node_rank", "1"], "--node_rank 1 of --num_nodes 1"),
        (["--python", "false"], "false has no arkasr"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_status_2(words, sentence, tree):
    done = recipe(*words, egs=tree)
    assert done.returncode == 2
    assert done.stderr.startswith("run.sh: error: ") and done.stderr.count("\n") == 1 and sentence in done.stderr


@pytest.fixture
def tree(tmp_path):
    """Copy the scripts, with empty facts and configurations, to a folder to write in; beside it a stand-in python."""
    egs = tmp_path / "checkout" / "egs"
    (egs / "librispeech" / "conf").mkdir(parents=True)
    for name in ("recipe.sh", "cmd.sh", "options.sh", "librispeech/run.sh"):
        shutil.copy(EGS / name, egs / name)
    for name in ("corpus.yaml", "conf/mini.yaml", "conf/paper.yaml"):
        (egs / "librispeech" / name).touch()
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    return egs


def stub_env(tmp_path, **env):
    return {"STUB_LOG": str(tmp_path / "ran"), "STUB_AT": "-", "STUB_STATUS": "0", "STUB_WAIT": "", **env}


def test_a_real_run_runs_the_commands_of_the_dry_run(tree, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    words = ["--python", str(tmp_path / "stub"), "--corpus_dir", str(corpus)]
    done = recipe(*words, egs=tree, cwd="/", **stub_env(tmp_path))
    assert done.returncode == 0, done.stderr
    ran = (tmp_path / "ran").read_text().splitlines()
    assert set(ran[::2]) == {str(tree / "librispeech")}
    assert ran[1::2] == [" ".join(command) for command in dry(*words, egs=tree)]
    lines = logged(done)
    assert lines[0].endswith(f"librispeech/run.sh {shlex.join(words)}")
    assert "Skip stage 0: Download: --corpus_dir names an existing corpus" in lines
    expdir = tree / "librispeech" / "exp" / "mini-corpus"
    assert lines[-3:-1] == [f"Results: {expdir}/RESULTS.md", f"Figures: {expdir}/figures"]
    assert re.fullmatch(r"Successfully finished. \[elapsed=\d+s\]", lines[-1])


def test_a_failing_stage_keeps_its_status_and_says_how_to_carry_on(tree, tmp_path):
    words = ["--python", str(tmp_path / "stub")]
    done = recipe(*words, egs=tree, **stub_env(tmp_path, STUB_AT="base_opd", STUB_STATUS="7"))
    assert done.returncode == 7
    assert logged(done)[-1] == "Stage 3: Train base_opd: ended with exit status 7"
    assert "The same command carries on" in done.stderr and done.stderr.endswith(" --stage 3\n")
    assert "--run base_td " not in (tmp_path / "ran").read_text()


@pytest.fixture
def running(tree, tmp_path):
    """Start a recipe that stays in a deaf `arkasr train --run base`; returns its process and that command's pid."""
    env = {**os.environ, **stub_env(tmp_path, STUB_AT="base", STUB_WAIT="600")}
    words = ["--python", str(tmp_path / "stub"), "--stage", "3", "--grace", "1"]
    with open(tmp_path / "output", "w") as output:
        process = subprocess.Popen(
            [tree / "librispeech" / "run.sh", *words],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=heed_signals,
        )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    sleeps = lambda pid: Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00600\x00"  # noqa: E731
    wait_until(lambda: any(map(sleeps, children.read_text().split())))
    yield process, int(children.read_text().split()[0])
    process.kill()
    process.wait()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_stops_the_command_and_keeps_what_was_done(name, running, tmp_path):
    process, child = running
    process.send_signal(getattr(signal, name))
    assert process.wait(60) == 128 + getattr(signal, name)
    assert gone(child)
    assert "The same command carries on" in (tmp_path / "output").read_text()


def test_the_command_goes_with_a_killed_recipe(running):
    process, child = running
    process.kill()
    process.wait()
    wait_until(lambda: gone(child))


def test_two_runs_do_not_share_a_folder(running, tree, tmp_path):
    done = recipe("--python", str(tmp_path / "stub"), egs=tree, **stub_env(tmp_path))
    assert done.returncode == 2 and "another run is at work in exp/mini" in done.stderr
