"""Runs of the recipe in copies of egs/, and what they print."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

EGS = Path(__file__).parents[2] / "egs"

LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d \(recipe\.sh:\d+:main\) (.*)$")


def recipe(*words, egs=EGS, corpus="librispeech", cwd=None, **env):
    return subprocess.run(
        [egs / corpus / "run.sh", *words], capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}
    )


def commands(done):
    """Return the commands of a dry run, as the shell would split them, without the first (a cd) and the python."""
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines() if not LOG_LINE.match(line)]
    assert lines[0][0] == "cd"
    return [line[1:] for line in lines[1:]]


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("never came true")


def heed_signals() -> None:
    """Undo what nohup or a shell's `&` leaves: bash cannot trap a signal that was ignored when it started."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def gone(pid):
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or ") Z " in stat.read_text()
