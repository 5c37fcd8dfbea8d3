"""The recipe: options, exact commands, failing stages and signals."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess

import pytest
from processes import arguments, children, has_ended, wait_until
from recipes import EGS, LOG_LINE, commands, recipe, reset_signals

from arkasr.config.schema import Config

RECIPES_PAGE = (EGS.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
CORPORA = ["librispeech", "aishell", "wenetspeech"]
RUNS = {"mini": "base base_steps base_opd base_td_opd", "paper": "base base_opd base_td_opd"}  # of --variants
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
def test_script_parses(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("corpus", CORPORA)
def test_run_sh_is_short_and_user_options_come_last(corpus):
    lines = (EGS / corpus / "run.sh").read_text().splitlines()
    assert len(lines) <= 12 and lines[-1].endswith('recipe.sh" --corpus "${here##*/}" "$@"')
    assert os.access(EGS / corpus / "run.sh", os.X_OK) and os.access(EGS / "recipe.sh", os.X_OK)


def options_table():
    return re.search(r"^OPTIONS='(.*?)'$", (EGS / "recipe.sh").read_text(), re.M | re.S)[1]


def test_help_lists_every_option_with_its_default():
    shown = recipe("--help")
    assert shown.returncode == 0 and shown.stderr == ""
    rows = [line.split("|") for line in options_table().splitlines()]
    assert len(rows) >= 18
    for name, _, default, text in rows:
        assert re.search(rf"^  --{name} +{re.escape(text)} \[{re.escape(default)}\]$", shown.stdout, re.M)
    assert max(map(len, shown.stdout.splitlines())) <= 100


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["mini", "paper"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_dry_run_prints_every_stage(corpus, scale):
    lines = dry("--scale", scale, corpus=corpus)
    teacher = ["train"] if scale == "mini" else []
    runs = RUNS[scale].split()
    assert verbs(lines) == ["download", "prepare", *teacher, "label", *["train"] * (len(runs) + 1), "decode", "score"]
    assert train_runs(lines)[len(teacher) :] == [*runs[:-1], "base_td", "base_td_opd"]
    assert lines[0][2:] == ["download", "corpus.yaml", "--scale", scale, "--corpus_dir", f"downloads/{scale}"]
    for line in lines[2:]:
        assert flag(line, "--expdir") == f"exp/{scale}" and flag(line, "--datadir") == f"data/{scale}"
    for line in lines[-2:]:
        assert flag(line, "--runs") == f"teacher {RUNS[scale]}"


def test_a_configuration_of_your_own_need_not_have_the_control(tmp_path):
    (tmp_path / "own.yaml").write_text("")
    assert flag(dry("--conf", str(tmp_path / "own.yaml"))[-1], "--runs") == f"teacher {RUNS['paper']}"


def test_dry_run_writes_nothing(tree, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert dry("--scale", "mini", egs=tree)
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_needs_no_arkasr(tree, tmp_path):
    nothing = tmp_path / "nothing"
    nothing.write_text("#!/bin/sh\nexit 1\n")
    nothing.chmod(0o755)
    done = recipe("--dry_run", "true", "--python", str(nothing), egs=tree)
    assert len(commands(done)) == 11


def test_24_workers_on_three_machines_give_the_torchrun_command():
    words = ["--stage", "3", "--scale", "paper", "--ngpu", "8", "--num_nodes", "3", "--node_rank", "2"]
    words += ["--python", "python3"]
    lines = dry(*words, "--master_addr", "first", "--master_port", "1234")
    assert train_runs(lines) == ["base", "base_opd", "base_td", "base_td_opd"]
    assert verbs(lines) == ["train"] * 4 + ["decode"]  # machine 0 scores
    assert lines[1] == shlex.split(
        "-m torch.distributed.run --nnodes 3 --nproc-per-node 8 --node-rank 2 --master-addr first --master-port 1234"
        " --max-restarts 3 --shutdown-timeout 120 --no-python --"
        " env MASTER_PORT=1235 TORCHELASTIC_USE_AGENT_STORE=False"
        " python3 -m arkasr train conf/paper.yaml --run base_opd --expdir exp/paper --datadir data/paper"
    )


def test_torchrun_parses_the_24_worker_command():
    run = pytest.importorskip("torch.distributed.run")
    line = dry("--stage", "3", "--stop_stage", "3", "--scale", "paper", "--ngpu", "8", "--num_nodes", "3")[0]
    config, command, words = run.config_from_args(run.parse_args(line[2:]))
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node) == (3, 3, 8)
    assert config.rdzv_backend == "static" and config.rdzv_configs["rank"] == 0
    assert (config.max_restarts, config.shutdown_timeout) == (3, 120)
    assert [command, *words] == line[line.index("--") + 1 :]


@pytest.mark.parametrize(
    ("ngpu", "nodes", "rank"), [("8", "3", "2"), ("2", "1", "0"), ("1", "1", "0"), ("0", "1", "0")]
)
def test_labelling_and_decoding_start_like_trainings(ngpu, nodes, rank):
    words = ["--stage", "2", "--scale", "paper", "--variants", "base_td", "--ngpu", ngpu, "--train_args", "a.b=1"]
    lines = dry(*words, "--num_nodes", nodes, "--node_rank", rank, "--master_addr", "first", "--python", "python3")
    label, train, *_, decode = [line for line in lines if "score" not in line]
    label_verb = "arkasr label conf/paper.yaml --expdir exp/paper --datadir data/paper a.b=1"
    assert label[label.index("arkasr") :] == label_verb.split()
    decode_verb = "arkasr decode --expdir exp/paper --datadir data/paper --runs base_td"
    assert decode[decode.index("arkasr") :] == decode_verb.split()
    assert label[: label.index("arkasr")] == decode[: decode.index("arkasr")] == train[: train.index("arkasr")]
    assert ("--nproc-per-node" in label) == (int(ngpu) > 1)
    assert len([line for line in lines if "score" in line]) == (rank == "0")


@pytest.mark.slow
def test_one_process_needs_no_torchrun_and_several_do():
    assert flag(dry("--stage", "3", "--ngpu", "2")[0], "--nproc-per-node") == "2"
    assert dry("--stage", "3", "--ngpu", "1")[0][:3] == ["-m", "arkasr", "train"]
    hidden = recipe("--dry_run", "true", "--stage", "3", "--ngpu", "0")
    assert "\nenv CUDA_VISIBLE_DEVICES= " in hidden.stdout


def test_stage_3_trains_decodes_and_scores():
    done = recipe("--stage", "3", "--dry_run", "true")
    assert verbs(commands(done)) == ["train"] * 5 + ["decode", "score"]
    assert [line[:7] for line in logged(done) if line.startswith("Stage")] == ["Stage 3"] * 5 + ["Stage 4", "Stage 5"]
    assert "Stage 3: Train base" in logged(done)


@pytest.mark.slow
@pytest.mark.parametrize("stage", range(7))
def test_each_stage_runs_alone(stage):
    expected = ["download"], ["prepare"], ["train", "label"], ["train"] * 5, ["decode"], ["score"], ["export"]
    assert verbs(dry("--stage", str(stage), "--stop_stage", str(stage))) == expected[stage]


@pytest.mark.slow
def test_stage_6_runs_only_on_request_and_exports_the_students():
    lines = dry("--stage", "5", "--stop_stage", "6")
    assert verbs(lines) == ["score", "export"]
    assert flag(lines[-1], "--runs") == RUNS["mini"] and flag(lines[-2], "--runs")[:8] == "teacher "
    assert flag(lines[-1], "--expdir") == "exp/mini" and flag(lines[-1], "--datadir") == "data/mini"
    assert verbs(dry("--stage", "5")) == ["score"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variants", "trained", "decoded"),
    [
        ("base", "base", "base"),
        ("base_opd", "teacher base base_opd", "teacher base_opd"),
        ("base_td", "teacher base base_td", "base_td"),
        ("base_td_opd base", "teacher base base_td base_td_opd", "teacher base_td_opd base"),
    ],
)
def test_variants_include_the_runs_they_start_from(variants, trained, decoded):
    lines = dry("--variants", variants)
    assert train_runs(lines) == trained.split()
    assert flag(lines[-1], "--runs") == decoded
    assert ("label" in verbs(lines)) == ("td" in variants)


def test_unknown_variant_needs_a_configuration_that_has_it():
    assert "unknown run 'base_odp'" in recipe("--variants", "base_odp", "--dry_run", "true").stderr
    conf = str(EGS / "librispeech" / "conf" / "mini.yaml")
    assert "my_opd" in train_runs(dry("--variants", "base my_opd", "--conf", conf))


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--stop_stage 1", "--stop-stage 1", "--stop_stage=1", "--stop-stage=1"])
def test_dashes_underscores_and_equals_signs_are_equal(words):
    assert verbs(dry(*words.split())) == ["download", "prepare"]


def test_last_value_counts():
    assert verbs(dry("--stage", "1", "--stage", "5")) == ["score"]


def test_paths_are_relative_to_the_working_directory(tmp_path):
    lines = dry("--corpus_dir", "my corpus", "--expdir", "../out", cwd=tmp_path)
    assert verbs(lines)[0] == "prepare"
    assert flag(lines[0], "--corpus_dir") == str(tmp_path / "my corpus")
    assert flag(lines[0], "--datadir") == "data/mini-my corpus"
    assert flag(lines[-1], "--expdir") == str(tmp_path.parent / "out")


@pytest.mark.slow
def test_overrides_reach_training_and_labelling_unchanged():
    lines = dry("--train_args", "a.b=1e-4 c=* d=$(date)")
    assert all(line[-3:] == ["a.b=1e-4", "c=*", "d=$(date)"] for line in lines[2:8])
    assert "a.b=1e-4" not in lines[-1]


SCORE = ["--stage", "5", "--dry_run", "true"]


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
@pytest.mark.parametrize("script", ["run.sh", "../recipe.sh"])
def test_recipe_runs_from_any_shell(shell, script):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    words = [] if script == "run.sh" else ["--corpus", "aishell"]
    folder = EGS / "aishell"
    done = subprocess.run([shell, script, *words, *SCORE], capture_output=True, text=True, cwd=folder)
    assert done.stderr == "" and verbs(commands(done)) == ["score"]
    wrong = subprocess.run([shell, script, *words, "--stage", "x"], capture_output=True, text=True, cwd=folder)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1


def test_further_models_and_test_sets_reach_stages_4_and_5_with_absolute_paths(tmp_path):
    (tmp_path / "model").mkdir()
    words = ["--stage", "4", "--checkpoint", "Qwen/Qwen3-ASR-0.6B,tiny=whisper:model,old=model,x=./absent"]
    lines = dry(*words, "--test_sets", "calls:de=../calls.csv zh=data", cwd=tmp_path)
    for verb in ("decode", "score"):
        (options,) = (line for line in lines if verb in line)
        assert options[options.index("--runs") + 1] == f"teacher {RUNS['mini']}"
        assert options[options.index("--checkpoint") + 1 :] == [
            "Qwen/Qwen3-ASR-0.6B",
            f"tiny=whisper:{tmp_path}/model",
            f"old={tmp_path}/model",
            f"x={tmp_path}/absent",
            "--test_sets",
            f"calls:de={tmp_path.parent}/calls.csv",
            f"zh={tmp_path}/data",
        ]


@pytest.mark.parametrize(
    ("trained", "words", "rows"),
    [
        ([], ["--checkpoint", "a/b"], ["--checkpoint", "a/b"]),
        (["base"], [], ["--runs", "base"]),
        (["base", "base_opd"], ["--checkpoint", "a/b"], ["--runs", "teacher base base_opd", "--checkpoint", "a/b"]),
        ([], ["--variants", "base_td"], ["--runs", "base_td"]),  # stage 4 says that it is not trained
    ],
)
def test_skip_train_decodes_what_is_trained(trained, words, rows, tmp_path):
    for run in trained:
        (tmp_path / run / "final").mkdir(parents=True)
        (tmp_path / run / "final" / "config.json").touch()
    lines = dry("--skip_train", "true", "--expdir", str(tmp_path), *words)
    assert not any(verb in line for line in lines for verb in ("train", "label"))
    for verb in ("decode", "score"):
        (options,) = (line for line in lines if verb in line)
        assert options[options.index("--datadir") + 2 :] == rows


def spooled(tmp_path, **env):
    """Run a copy of run.sh in another folder, as slurmd does with the file given to sbatch."""
    copy = tmp_path / "spool" / "slurm_script"
    copy.parent.mkdir()
    shutil.copy(EGS / "aishell" / "run.sh", copy)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.run([copy, *SCORE], capture_output=True, text=True, cwd=tmp_path, env=bare | env)


@pytest.mark.parametrize("arguments", ["", " --stage 5 --train_args a/run.sh"])
def test_copy_of_run_sh_in_a_job_finds_the_original(arguments, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "our egs").symlink_to(EGS)
    scontrol = tmp_path / "bin" / "scontrol"
    original = tmp_path / "our egs" / "aishell" / "run.sh"
    scontrol.write_text(
        f'#!/bin/sh\n[ "$*" = "show job 7" ] && printf "JobId=7\\n   Command={original}{arguments}\\n"\n'
    )
    scontrol.chmod(0o755)
    done = spooled(tmp_path, SLURM_JOB_ID="7", PATH=f"{scontrol.parent}:{os.environ['PATH']}")
    assert done.stderr == "" and verbs(commands(done)) == ["score"]


def test_copy_of_run_sh_in_a_job_takes_the_folder_of_submission(tmp_path):
    done = spooled(tmp_path, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(EGS / "aishell"))
    assert verbs(commands(done)) == ["score"] and f"cd {EGS}/aishell\n" in done.stdout


def test_copy_of_run_sh_elsewhere_is_an_error_of_one_sentence(tmp_path):
    done = spooled(tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.endswith("has no recipe.sh in the folder above: start run.sh in its own folder under egs/\n")


def test_recipe_needs_no_home_but_for_a_tilde():
    bare = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    for words, status in ((["--expdir", "/x/exp"], 0), (["--expdir", "~/exp"], 2)):
        done = subprocess.run([EGS / "aishell" / "run.sh", *SCORE, *words], capture_output=True, text=True, env=bare)
        assert done.returncode == status and "unbound" not in done.stderr
    assert done.stderr == "run.sh: error: --expdir ~/exp: HOME is not set; write the whole path\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stag", "3"], "unknown option --stag; did you mean --stage?"),
        (["--nodes", "3"], "did you mean --num_nodes?"),
        (["--stage", "\x1b[31mx\n"], "not '?[31mx?'"),
        (["--zzzzzz", "3"], "unknown option --zzzzzz (--help lists all options)"),
        (["--$(exit)", "3"], "unknown option"),
        (["--stage"], "--stage needs a value"),
        (["--stage", "--scale", "mini"], "--stage needs a value"),
        (["--stage", "two"], "--stage takes a whole number of at most 6 digits, not 'two'"),
        (["--nj", "0"], "--nj takes a whole number of at least 1"),
        (["--dry_run", "yes"], "--dry_run takes true or false, not 'yes'"),
        (["--scale", "huge"], "--scale takes mini or study or paper, not 'huge'"),
        (["--scale", "*"], "--scale takes mini or study or paper, not '*'"),
        (["--corpus_dir", ""], "--corpus_dir is empty"),
        (["--variants", " "], "--variants is empty: name at least one run"),
        (["extra"], "unexpected argument 'extra'"),
        (["--variants", "base", "base_opd"], "unexpected argument 'base_opd'"),
        ([""], "unexpected argument ''"),
        (["--stage", "6"], "no stage from --stage 6 to --stop_stage 5"),
        (["--stage", "7", "--stop_stage", "7"], "stages are numbered from 0 (download) to 6 (export)"),
        (["--stage", "3", "--stop_stage", "2"], "no stage from --stage 3 to --stop_stage 2"),
        (["--stage", "0", "--stop_stage", "0", "--corpus_dir", "x", "--dry_run", "true"], "nothing to run"),
        (["--master_port", "0"], "--master_port 0 must be from 1 to 65534: the next port is used too"),
        (["--master_port", "65535"], "--master_port 65535 must be from 1 to 65534"),
        (["--cmd", "slurm", "--python", "true"], "--cmd slurm needs sbatch"),
        (["--expdir", "/proc/none", "--python", "true"], "cannot create --expdir /proc/none: choose another folder"),
        (["--conf", "no.yaml"], "no.yaml does not exist: set --conf"),
        (["--corpus", "nowhere"], "no recipe 'nowhere'"),
        (["--test_sets", "calls.csv"], "--test_sets takes NAME=PATH, not 'calls.csv'"),
        (["--test_sets", "=calls.csv"], "--test_sets takes NAME=PATH, not '=calls.csv'"),
        (
            ["--skip_train", "true", "--python", "true"],
            "none of the runs base base_steps base_opd base_td_opd is trained in",
        ),
        (
            ["--corpus_dir", "no_such_folder", "--python", "true"],
            "no_such_folder does not exist",
        ),
        (["--num_nodes", "2", "--python", "true"], "needs --master_addr"),
        (["--node_rank", "1"], "--node_rank 1 must be below --num_nodes 1"),
        (["--python", "false"], "false cannot import arkasr"),
    ],
)
def test_invalid_call_gives_one_line_and_status_2(words, message, tree):
    done = recipe(*words, egs=tree)
    assert done.returncode == 2
    assert done.stderr.startswith("run.sh: error: ") and done.stderr.count("\n") == 1 and message in done.stderr


def foreign_options():
    """Return the rows of the table of ESPnet's and icefall's options: name, toolkit, option here, remark."""
    table = re.search(r"^FOREIGN_OPTIONS='(.*?)'$", (EGS / "options.sh").read_text(), re.M | re.S)[1]
    return [line.split("|") for line in table.splitlines()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--asr_args", "--lr 1"], '--asr_args is an option of ESPnet; use --train_args "section.key=value"'),
        (["--asr-config=x"], "--asr_config is an option of ESPnet; use --conf"),
        (["--use_lm", "false"], "--use_lm is an option of ESPnet that does not exist here: no language model is used"),
        (["--world-size", "4"], "--world-size is an option of icefall; use --ngpu (processes per machine)"),
        (["--exp_dir", "x"], "--exp-dir is an option of icefall; use --expdir"),
    ],
)
def test_option_of_another_toolkit_is_an_error_that_names_the_option_here(words, message):
    done = recipe(*words, "--dry_run", "true")
    assert (done.returncode, done.stderr) == (2, f"run.sh: error: {message}\n")


def test_misspelt_option_of_another_toolkit_names_the_option_here():
    done = recipe("--max_epochs", "3")
    assert done.returncode == 2 and "--max_epoch is an option of ESPnet; use --train_args" in done.stderr


def test_foreign_options_are_distinct_and_name_options_that_exist():
    own = {row.split("|")[0] for row in options_table().splitlines()}
    names = [name.replace("-", "_") for name, *_ in foreign_options()]
    assert len(names) == len(set(names)) >= 60 and not own & set(names)
    for _, toolkit, option, remark in foreign_options():
        assert toolkit in ("ESPnet", "icefall") and (option or remark)
        assert not option or re.match(r"--(\w+)", option)[1] in own
    required = (
        "skip_data_prep skip_eval asr_args asr_config train_config inference_config decode_config "
        "inference_nj inference_asr_model asr_exp gpu_inference max_epoch lang token_type bpe nbpe use_lm world_size "
        "exp_dir max_duration num_epochs start_epoch full_libri manifest_dir epoch avg"
    )
    assert set(required.split()) <= set(names)


def test_foreign_options_name_configuration_keys_that_exist():
    found = [re.match(r'--train_args "([\w.]+)=', option) for _, _, option, _ in foreign_options()]
    keys = {match[1] for match in found if match} - {"section.key", "decode.key"}
    assert len(keys) >= 10
    for key in keys:
        section, _, name = key.rpartition(".")
        assert hasattr(getattr(Config(), section) if section else Config(), name), key


def test_documentation_lists_every_option_of_the_recipe():
    for name, _, default, _ in (line.split("|") for line in options_table().splitlines()):
        value = f"`{default}`" if default else ""
        assert re.search(rf"^\| `--{name}` \| {re.escape(value)} ?\| \S", RECIPES_PAGE, re.M), name


@pytest.mark.parametrize("row", foreign_options(), ids=lambda row: row[0])
def test_documentation_holds_the_row_of_a_foreign_option(row):
    name, toolkit, option, remark = row
    here = f"`{option}`" if option else "none"
    assert f"| `--{name}` | {toolkit} | {here} |" + (f" {remark} |" if remark else " |") in RECIPES_PAGE.splitlines()


def test_documentation_holds_no_other_foreign_options():
    rows = re.findall(r"^\| `--([\w-]+)` \| (?:ESPnet|icefall) \|", RECIPES_PAGE, re.M)
    assert rows == [name for name, *_ in foreign_options()]


@pytest.fixture
def tree(tmp_path):
    """Copy the scripts, with empty corpus and configuration files, to a writable folder; a fake Python is beside it."""
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


def test_real_run_runs_the_commands_of_the_dry_run(tree, tmp_path):
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
    assert lines[-4:-1] == [
        f"Results: {expdir}/RESULTS.md",
        f"Figures: {expdir}/figures",
        f"Report: {expdir}/report.html",
    ]
    assert re.fullmatch(r"Successfully finished. \[elapsed=\d+s\]", lines[-1])


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("2", "Correct what the message above names. Finished work is kept. To start"),
        ("1", "If a message above names a cause, remove it first. Finished work is kept. The same command resumes. To"),
        ("137", "Finished work is kept. The same command resumes. To start at this stage: "),
    ],
)
def test_advice_after_a_failure_promises_no_resumption_of_what_would_fail_again(status, advice, tree, tmp_path):
    words = ["--python", str(tmp_path / "stub"), "--stage", "3"]
    done = recipe(*words, egs=tree, **stub_env(tmp_path, STUB_AT="base", STUB_STATUS=status))
    assert done.returncode == int(status) and done.stderr.startswith(advice)


def test_failing_stage_keeps_its_status_and_names_the_command_that_resumes(tree, tmp_path):
    words = ["--python", str(tmp_path / "stub")]
    done = recipe(*words, egs=tree, **stub_env(tmp_path, STUB_AT="base_opd", STUB_STATUS="7"))
    assert done.returncode == 7
    assert logged(done)[-1] == "Stage 3: Train base_opd: failed with exit status 7"
    assert "The same command resumes" in done.stderr and done.stderr.endswith(" --stage 3\n")
    assert "--run base_td " not in (tmp_path / "ran").read_text()


@pytest.fixture
def running(tree, tmp_path):
    """Start a recipe whose `arkasr train --run base` ignores signals; yield its process and that command's id."""
    env = {**os.environ, **stub_env(tmp_path, STUB_AT="base", STUB_WAIT="600")}
    words = ["--python", str(tmp_path / "stub"), "--stage", "3", "--grace", "1"]
    with open(tmp_path / "output", "w") as output:
        process = subprocess.Popen(
            [tree / "librispeech" / "run.sh", *words],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=reset_signals,
        )
    found = []

    def training_started():
        assert process.poll() is None, (tmp_path / "output").read_text()
        found[:] = [pid for pid in children(process.pid) if arguments(pid) == ["sleep", "600"]]
        return bool(found)

    wait_until(training_started)
    yield process, found[0]
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_signal_stops_the_command_and_keeps_finished_work(name, running, tmp_path):
    process, child = running
    process.send_signal(getattr(signal, name))
    assert process.wait(120) == 128 + getattr(signal, name)
    assert has_ended(child)
    assert "The same command resumes" in (tmp_path / "output").read_text()


def test_command_ends_with_a_killed_recipe(running):
    process, child = running
    process.kill()
    process.wait()
    wait_until(lambda: has_ended(child))


@pytest.mark.slow
def test_two_runs_cannot_share_a_folder(running, tree, tmp_path):
    done = recipe("--python", str(tmp_path / "stub"), egs=tree, **stub_env(tmp_path))
    assert done.returncode == 2 and "another run is using exp/mini" in done.stderr


def test_missing_command_is_named(tmp_path):
    for name in ("bash", "env", "dirname", "readlink", "sed", "realpath", "flock", "stdbuf"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = recipe(*SCORE, PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "run.sh: error: the command setpriv is missing: install GNU coreutils and util-linux\n"
