"""The command line: verbs call their functions, and errors that the user can fix are one sentence."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from dataclasses import fields
from types import ModuleType

import pytest

from arkasr import __version__, cli
from arkasr.errors import UserError
from arkasr.planning.assumptions import Assumptions

DIRS = ["--expdir", "exp", "--datadir", "data"]
CALLS = {
    "download": (
        "arkasr.corpora.download", "download",
        ["c.yaml", "--scale", "mini", "--corpus_dir", "d"], ("c.yaml", "mini", "d"),
    ),
    "prepare": (
        "arkasr.corpora.prepare", "prepare",
        ["c.yaml", "--scale", "paper", "--corpus_dir", "d", "--datadir", "data", "--nj", "3", "--shar"],
        ("c.yaml", "paper", "d", "data", 3, True),
    ),
    "label": (
        "arkasr.evaluation.label", "label",
        ["c.yaml", *DIRS, "a.b=1"], ("c.yaml", "exp", "data", ["a.b=1"]),
    ),
    "train": (
        "arkasr.training.train", "train",
        ["c.yaml", "a.b=1", "--run", "base", *DIRS, "c=d e"], ("c.yaml", "base", "exp", "data", ["a.b=1", "c=d e"]),
    ),
    "decode": ("arkasr.evaluation.decode", "decode", [*DIRS, "--runs", "a b"], ("exp", "data", ["a", "b"], [], [])),
    "score": (
        "arkasr.reporting.score",
        "score",
        [*DIRS, "--runs", "a", "b", "--checkpoint", "x/y", "n=whisper:z", "--test_sets", "t=a.jsonl", "--profile=raw"],
        ("exp", "data", ["a", "b"], ["t=a.jsonl"], ["x/y", "n=whisper:z"], "raw"),
    ),
    "export": (
        "arkasr.export.export", "export",
        [*DIRS, "--runs", "a", "--checkpoint", "best", "--published", "--outdir", "o", "--license", "mit", "--adapter",
         "--onnx"],
        ("exp", "data", ["a"], "best", True, "o", "mit", True, True),
    ),
    "plan": (
        "arkasr.planning.plan", "plan",
        ["c.yaml", "--run", "base", "--gpus", "24", "--mfu", "0.5", "a.b=1", "--json"],
        ("c.yaml", "base", ["a.b=1"], {"gpus": 24, "mfu": 0.5}, True),
    ),
}  # fmt: skip


@pytest.fixture
def stand_in(monkeypatch):
    """Replace the function of a verb, and return a command line for it: stand_in("train", function)."""

    def put(verb, function):
        module, name, words, _ = CALLS[verb]
        fake = ModuleType(module)
        setattr(fake, name, function)
        monkeypatch.setitem(sys.modules, module, fake)
        return [verb, *words]

    return put


@pytest.fixture
def failing(stand_in):
    """Make `arkasr train` raise an error, and return a command line for it."""

    def put(error):
        def train(*_):
            raise error

        return stand_in("train", train)

    return put


@pytest.mark.parametrize("verb", CALLS)
def test_main_calls_function_of_verb(verb, stand_in):
    calls = []
    assert cli.main(stand_in(verb, lambda *arguments: calls.append(arguments))) == 0
    assert calls == [CALLS[verb][3]]


def test_export_defaults_to_final_weights_and_hugging_face_layout(stand_in):
    calls = []
    stand_in("export", lambda *arguments: calls.append(arguments))
    assert cli.main(["export", *DIRS, "--runs", "a b"]) == 0
    assert calls == [("exp", "data", ["a", "b"], "final", False, "", "", False, False)]


def test_options_accept_dashes_underscores_and_equals_signs(stand_in):
    calls = []
    stand_in("download", lambda *arguments: calls.append(arguments))
    assert cli.main(["download", "c.yaml", "--scale=mini", "--corpus-dir", "a-b"]) == 0
    assert cli.main(["download", "c.yaml", "--scale", "mini", "--corpus_dir=a-b"]) == 0
    assert calls == [("c.yaml", "mini", "a-b")] * 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "did you mean train?"),
        (["train", "c.yaml", *DIRS], "required: --run"),
        (["train", "c.yaml", "--rum", "base", *DIRS], "unknown option --rum; did you mean --run?"),
        (["train", "c.yaml", "--run", "base", *DIRS, "lr"], "expected section.key=value, got 'lr'"),
        (["train", "c.yaml", *DIRS, "--run"], "argument --run: expected one argument"),
        (["prepare", "c", "--scale", "huge", "--corpus_dir", "d", "--datadir", "d"], "invalid choice: 'huge'"),
        (
            ["prepare", "c", "--scale", "mini", "--corpus_dir", "d", "--datadir", "d", "--nj", "0"],
            "at least 1 and at most 9 digits, got '0'",
        ),
        (["prepare", "c", "--scale", "mini", "--corpus_dir", "d", "--datadir", "d", "--nj", "2000"], "at most 1024"),
        (["plan", "c", "--run", "a", "--gpus", "9" * 30], "at least 1 and at most 9 digits, got '999"),
        (["plan", "c", "--run", "a", "--gpus", "-1"], "--gpus"),
        (["plan", "c", "--run", "a", "--gpus", "8", "--mfu", "nan"], "must be a number above 0, got 'nan'"),
        (["plan", "c", "--run", "a", "--gpus", "8", "--mfu", "1e400"], "must be a number above 0, got '1e400'"),
        (["score", *DIRS, "--runs", "a", "--exp", "e"], "unknown option --exp; did you mean --expdir?"),
        ([], "required: verb"),
        (["plan", "c", "--run", "a", "--gpus", "8", "--node", "4"], "option --node is now called --gpus_per_node"),
        (["plan", "c", "--run", "a", "--gpus", "8", "--longest=2"], "--longest is now called --max_length_ratio"),
        (["plan", "c", "--run", "a", "--gpus", "8", "--full", "1"], "option --full is now called --batch_fill"),
        (["plan", "c", "--run", "a", "--gpus", "8", "--reserve=2"], "option --reserve is now called --reserved_memory"),
        (
            ["decode", *DIRS, "--runs", "a", "--ngpu=2"],
            "option --ngpu no longer exists; start the command with torchrun",
        ),
        (["score", *DIRS, "--runs", "a", "--node", "4"], "unknown option --node"),
    ],
)
def test_wrong_command_line_prints_one_sentence_and_exits_with_2(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


def _no_space(filename=None):
    return OSError(errno.ENOSPC, "No space left on device", filename)


def _caused(error, cause):
    error.__cause__ = cause
    return error


class NoException(BaseException):
    """A BaseException, like torch's CheckpointException."""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("conf.yaml: no key 'x'"), "error: conf.yaml: no key 'x'"),
        (UserError("two\n  lines"), "error: two lines"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.wav"), "a.wav: no such file or folder; check the path"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.wav"),
            "a.wav: Permission denied; check its permissions",
        ),
        (ConnectionError("cannot reach the hub"), "error: cannot reach the hub"),
        (_no_space("big.pt"), "error: no space left to write big.pt: free some space and run the same command again"),
        (_no_space(), "error: no space left to write a file under "),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space left to write"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "no space left"),
        (_caused(RuntimeError("worker failed"), _no_space("shard.flac")), "no space left to write shard.flac"),
        (NoException("ranks: [0] basic_ios::clear: iostream error"), "no space left to write"),
    ],
)
def test_user_error_prints_one_line_and_exits_with_2(error, sentence, failing, capsys):
    assert cli.main(failing(error)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("arkasr train: error: ") and sentence in printed and printed.count("\n") == 1


def test_ctrl_c_prints_how_to_resume(failing, capsys):
    assert cli.main(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "arkasr train: interrupted; run the same command again to resume\n"


def test_bug_keeps_its_traceback(failing):
    with pytest.raises(ZeroDivisionError):
        cli.main(failing(ZeroDivisionError("x")))


def test_arkasr_traceback_variable_shows_traceback(failing, monkeypatch):
    monkeypatch.setenv("ARKASR_TRACEBACK", "1")
    with pytest.raises(UserError):
        cli.main(failing(UserError("x")))


def test_errors_of_other_ranks_name_the_rank(failing, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    assert cli.main(failing(UserError("x"))) == 2
    assert capsys.readouterr().err == "arkasr train: error: x (rank 3)\n"


ROWS = [
    {"kind": "teacher", "name": "qwen3_asr", "distribution": "arkasr", "version": "0.1.0",
     "file": "/a/very/long/path/" + "folder/" * 12 + "teachers.py", "error": ""},
    {"kind": "", "name": "odd", "distribution": "arkasr-odd", "version": "2", "file": "odd.py",
     "error": "ImportError: No module named 'nothing'; " + "install it with pip " * 6},
]  # fmt: skip


def test_plugins_fits_terminal_and_shows_failures(monkeypatch, capsys):
    fake = ModuleType("arkasr.plugins.registry")
    fake.listing = lambda: ROWS
    monkeypatch.setitem(sys.modules, "arkasr.plugins.registry", fake)
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["kind", "name", "distribution", "version", "file"]
    assert lines[1].split()[:4] == ["teacher", "qwen3_asr", "arkasr", "0.1.0"] and lines[1].endswith("/teachers.py")
    assert lines[2].startswith("failed: odd (arkasr-odd 2 odd.py): ImportError: No module named 'nothing'")
    assert cli.main(["plugins", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ROWS


def test_help_and_version_do_not_import_torch():
    code = "import sys\nfrom arkasr.cli import main\ntry: main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    for words, expected in (["--help"], "verbs:"), (["train", "--help"], "--expdir"), (["--version"], __version__):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert expected in done.stdout and done.stdout.endswith("False\n")


def test_main_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown and parts.help in shown for verb, parts in cli.VERBS.items())


def test_plan_options_are_the_assumptions_of_the_forecast():
    assert list(cli.ASSUMED) == [item.name for item in fields(Assumptions)]
    shown = {name: re.search(r"\(default: ([\d.]+)\)$", text) for name, text in cli.ASSUMED.items()}
    assert shown.pop("gpus") is None
    defaults = {item.name: item.default for item in fields(Assumptions) if item.name != "gpus"}
    assert {name: float(match[1]) for name, match in shown.items()} == defaults
    assert set(cli.RENAMED.values()) <= {f"--{name}" for name in cli.ASSUMED}


def test_python_m_arkasr_runs_the_command():
    done = subprocess.run([sys.executable, "-m", "arkasr", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"arkasr {__version__}\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["decode", *DIRS, "--runs", ""], "--runs is empty: name at least one run, such as base"),
        (["score", *DIRS, "--runs", " ", "\t"], "--runs is empty: name at least one run"),
        (["export", *DIRS, "--runs="], "--runs is empty: name at least one run"),
        (["decode", *DIRS, "--runs", "base ../other"], "--runs ../other: not a name of a run"),
        (["score", *DIRS, "--runs", "base/"], "--runs base/: not a name of a run"),
        (["export", *DIRS, "--runs", "."], "--runs .: not a name of a run"),
    ],
)
def test_runs_without_a_name_of_a_run_are_an_error(words, sentence, stand_in, capsys):
    stand_in(words[0], lambda *_: None)
    assert cli.main(words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"arkasr {words[0]}: error: {sentence}") and printed.count("\n") == 1


def test_repeated_runs_count_once(stand_in):
    calls = []
    stand_in("score", lambda *arguments: calls.append(arguments))
    assert cli.main(["score", *DIRS, "--runs", "b a", "b"]) == 0
    assert calls == [("exp", "data", ["b", "a"], [], [], "")]


def test_decode_needs_no_runs_if_it_has_checkpoints(stand_in):
    calls = []
    stand_in("decode", lambda *arguments: calls.append(arguments))
    assert cli.main(["decode", *DIRS, "--checkpoint", "a/b"]) == 0
    assert calls == [("exp", "data", [], [], ["a/b"])]


@pytest.mark.parametrize("option", ["--run", "--expdir", "--datadir"])
def test_empty_values_are_refused(option, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "c.yaml", "--run", "base", *DIRS, option, " "])
    assert stop.value.code == 2 and f"argument {option}: is empty; give it a value" in capsys.readouterr().err


def test_error_messages_are_one_line_without_terminal_escapes(failing, capsys):
    assert cli.main(failing(UserError("\x1b[2Ja\nb.wav\x07: \u202e \udcff caf\u00e9 \u5b57"))) == 2
    expected = "arkasr train: error: \\x1b[2Ja b.wav\\x07: \\u202e \\udcff caf\u00e9 \u5b57\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "words",
    [
        ["\x1b[31mtrian"],
        ["train", "c.yaml", "--run", "a", *DIRS, "\x1b[2J"],
        ["score", *DIRS, "--runs", "a", "--\x1b[31mx"],
    ],
)
def test_wrong_words_are_shown_without_terminal_escapes(words, capsys):
    with pytest.raises(SystemExit):
        cli.main(words)
    printed = capsys.readouterr().err
    assert "\x1b" not in printed and "\\x1b[" in printed


def python(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, **options)


def test_words_that_are_not_utf8_are_an_error():
    done = python("-m", "arkasr", "train", b"caf\xe9.yaml", "--run", "a", *DIRS)
    assert done.returncode == 2 and b"\\udce9.yaml: is not UTF-8 text; rename the file or folder" in done.stderr
    assert b"Traceback" not in done.stderr


def closed_output(code, *words):
    """Start Python and close its output before it writes anything, as `| head -n 0` does."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", code, *words], **pipes)
    process.stdout.close()
    process.stdin.close()
    return process


@pytest.mark.parametrize("words", [["--help"], ["plugins"], ["plugins", "--json"]])
def test_output_may_be_cut_by_its_reader(words):
    code = "import sys\nfrom arkasr.cli import main\nsys.stdin.read()\nsys.exit(main(sys.argv[1:]))"
    process = closed_output(code, *words)
    assert process.stderr.read() == b"" and process.wait() == 141
    process.stderr.close()


def test_closed_output_of_a_training_is_an_error_of_one_sentence():
    code = (
        "import sys\nfrom types import ModuleType\nfrom arkasr import cli\n"
        "fake = ModuleType('arkasr.training.train')\n"
        "fake.train = lambda *_: print('x', flush=True)\nsys.modules[fake.__name__] = fake\n"
        "sys.stdin.read()\nsys.exit(cli.main(sys.argv[1:]))"
    )
    process = closed_output(code, "train", "c.yaml", "--run", "base", *DIRS)
    printed = process.stderr.read().decode()
    assert printed.startswith("arkasr train: error: the program that reads the output has ended; finished work is kept")
    assert printed.count("\n") == 1 and process.wait() == 2
    process.stderr.close()
