"""Runs of the recipe from egs/ or a copy of it, and their output."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

EGS = Path(__file__).parents[2] / "egs"

LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d \(recipe\.sh:\d+:main\) (.*)$")


def recipe(*words, egs=EGS, corpus="librispeech", cwd=None, **env):
    return subprocess.run(
        [egs / corpus / "run.sh", *words], capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}
    )


def commands(done):
    """Return the commands of a dry run as lists of words, without the first (a cd) and without the Python."""
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines() if not LOG_LINE.match(line)]
    assert lines[0][0] == "cd"
    return [line[1:] for line in lines[1:]]


def reset_signals() -> None:
    """Undo nohup and the shell's `&`: bash cannot trap a signal that was ignored when it started."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
