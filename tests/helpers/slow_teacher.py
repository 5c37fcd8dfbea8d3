"""A package with the teacher `slow`, for commands in other processes that are stopped in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from recipes import reset_signals
from source_tree import ROOT

SOURCE = '''
"""A teacher that notes the clips of its process, and waits with those that the file `wait` names."""
import os
import time
from dataclasses import dataclass
from pathlib import Path
import arkasr

FOLDER = Path(os.environ["SLOW_FOLDER"])

@dataclass
class Options:
    fail: str = ""

class Slow:
    tokenizer, stop_ids = None, [0]
    def __init__(self, options, device):
        self.options = options
    def transcribe(self, waveforms, languages):
        with (FOLDER / f"process-{os.getpid()}").open("a") as file:
            file.writelines(f"{len(w)}\\n" for w in waveforms)
        while (FOLDER / "wait").exists() and str(len(waveforms[0])) in (FOLDER / "wait").read_text().split():
            time.sleep(0.02)
        if self.options.fail:
            raise {"os": ConnectionRefusedError("no server"), "user": arkasr.UserError("too long")}[self.options.fail]
        return [arkasr.Transcript(f"English {len(w)}", True, False, 3) for w in waveforms]
    def score(self, waveforms, languages, token_ids):
        raise RuntimeError("labelling and decoding need no scores")

@arkasr.hookimpl
def register_teachers(register):
    register("slow", Slow, Options)
'''


def launcher(*options: str) -> list[str]:
    """Return the words before a command that start it with torchrun, as the recipe does. None without options."""
    if not options:
        return []
    run = [sys.executable, "-m", "torch.distributed.run", "--shutdown-timeout", "20", *options, "--no-python", "--"]
    if "--standalone" in options:
        return ["env", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1", *run]
    port = int(options[list(options).index("--master-port") + 1]) + 1
    return [*run, "env", f"MASTER_PORT={port}", "TORCHELASTIC_USE_AGENT_STORE=False"]


class SlowTeacher:
    """The package, installed into a folder, and commands that use it."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "slow-1.0.dist-info").mkdir(parents=True)
        (folder / "slow-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
        (folder / "slow-1.0.dist-info" / "entry_points.txt").write_text("[arkasr]\nslow = fake_slow\n")
        (folder / "fake_slow.py").write_text(SOURCE)

    def start(self, *words: object, torchrun: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start `arkasr` with these words, in a process group of its own, with torchrun if this has options for it."""
        paths = {"PYTHONPATH": f"{ROOT}:{self.folder}", "SLOW_FOLDER": str(self.folder)}
        env = os.environ | paths | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [*launcher(*torchrun), sys.executable, "-m", "arkasr", *map(str, words)]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            start_new_session=True,
            preexec_fn=reset_signals,
        )

    def clips(self) -> dict[int, list[int]]:
        """Return the numbers of samples that each process was asked to transcribe, by process id."""
        files = self.folder.glob("process-*")
        return {int(file.name.split("-")[1]): [int(line) for line in file.read_text().split()] for file in files}

    def forget(self) -> None:
        """Delete what `clips` returns."""
        for file in self.folder.glob("process-*"):
            file.unlink()
