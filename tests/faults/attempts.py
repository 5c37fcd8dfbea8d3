"""One start of `arkasr train` with all its processes: progress, files, and exit status."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
MARK = "ARKASR_FAULTS_ATTEMPT"  # environment variable that marks every process of one attempt
TIMEOUT = 300.0  # seconds after which a process counts as hung


def wait_for(condition: Callable[[], bool], seconds: float = TIMEOUT, pause: float = 0.002) -> bool:
    """Wait until a condition holds. Return False if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


@dataclass
class Run:
    """One run directory, and the command that is started in it repeatedly."""

    conf: Path
    datadir: Path
    expdir: Path
    logs: Path
    ranks: int
    overrides: Sequence[str]
    run: str = "base"
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.expdir.parent.name if self.expdir.name == "exp" else self.expdir.name

    @property
    def folder(self) -> Path:
        return self.expdir / self.run

    def start(self, *overrides: str) -> Attempt:
        """Start the command in a new session, with its output in a file in `logs`."""
        by_key = {word.partition("=")[0]: word for word in (*self.overrides, *overrides)}
        launch = [sys.executable, *((*TORCHRUN, str(self.ranks), "-m", "--") if self.ranks > 1 else ("-m",)), "arkasr"]
        words = [*launch, "train", str(self.conf), "--run", self.run, "--expdir", str(self.expdir)]
        words += ["--datadir", str(self.datadir), *by_key.values()]
        attempt = Attempt(words, self.logs / f"{self.name}-{len(self.attempts)}.log")
        self.attempts.append(attempt)
        return attempt

    def finish(self, *overrides: str) -> Attempt:
        """Start the command and wait until it ends."""
        attempt = self.start(*overrides)
        attempt.wait()
        return attempt

    def step(self) -> int:
        """Return the last step of metrics.jsonl, 0 before the first."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)

    def saved(self) -> int:
        """Return the step of the newest complete checkpoint, 0 if there is none."""
        return max((int(p.parent.name[5:]) for p in self.folder.glob("checkpoints/step-*/COMPLETE")), default=0)

    def newest(self) -> Path:
        return self.folder / "checkpoints" / f"step-{self.saved():08d}"

    def saving(self) -> bool:
        """Return whether a checkpoint is being written, or was left partly written."""
        return any(self.folder.glob("checkpoints/writing-*"))

    def digest(self) -> str:
        """Return the SHA-256 of the final weights, an empty string if there are none."""
        weights = self.folder / "final" / "model.safetensors"
        return hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else ""


class Attempt:
    """A started command. All its descendants carry its mark in their environment, also those that outlive it."""

    def __init__(self, words: Sequence[str], output: Path):
        self.mark, self.output, self.started = uuid.uuid4().hex, output, time.monotonic()
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        env = {MARK: self.mark, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with output.open("w") as file:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | env, start_new_session=True
            )

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> int:
        """Return the exit status. A command that hangs is killed and raises TimeoutExpired."""
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise

    @property
    def status(self) -> int | None:
        return self.process.returncode

    def alive(self) -> dict[int, dict[str, str]]:
        """Return the environments of all live processes of this attempt by process id."""
        found = {}
        for proc in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (proc / "environ").read_bytes().split(b"\0")
                values = dict(w.decode(errors="replace").partition("=")[::2] for w in words)
                dead = (proc / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                if values.get(MARK) == self.mark and not dead:
                    found[int(proc.name)] = values
        return found

    def ranks(self) -> dict[int, int]:
        """Return the process ids of the ranks, without data loaders. Without torchrun, the command itself is rank 0."""
        found = {pid: int(values["RANK"]) for pid, values in self.alive().items() if "RANK" in values}
        if not found:
            return {0: self.process.pid}
        return {rank: pid for pid, rank in found.items() if _parent(pid) not in found}

    def loaders(self) -> list[int]:
        """Return the process ids of data loader processes."""
        parents = set(self.ranks().values())
        return sorted(pid for pid in self.alive() if _parent(pid) in parents and pid not in parents)

    def gone(self, seconds: float = TIMEOUT) -> float:
        """Wait until no process of this attempt is alive. Return the seconds that took, or infinity."""
        start = time.monotonic()
        return time.monotonic() - start if wait_for(lambda: not self.alive(), seconds, 0.1) else float("inf")

    def send(self, number: signal.Signals, pids: Iterable[int] = ()) -> None:
        """Send a signal to these processes, or to all processes of this attempt if none are given."""
        for pid in pids or self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_all(self) -> None:
        """Kill all live processes with SIGKILL."""
        self.send(signal.SIGKILL)
        self.process.wait()

    def resumed_from(self) -> int:
        """Return the step from which it resumed, 0 if it started from the beginning."""
        found = re.search(r"resuming from .* \(step (\d+)\)", self.text())
        return int(found[1]) if found else 0

    def user_error(self) -> str:
        """Return the user error that the command printed as one line, an empty string if there is none."""
        lines = [line for line in self.text().splitlines() if line.startswith("arkasr train: ")]
        return lines[0] if len(lines) == 1 and "Traceback" not in self.text() else ""


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
