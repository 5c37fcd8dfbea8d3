"""One launch of the recipe's stage 3 on several hosts: processes, progress, and exit statuses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hosts import Hosts

ROOT = Path(__file__).parents[2]


@dataclass
class Experiment:
    """One run of a configuration in an experiment directory, with the overrides of every launch."""

    conf: Path
    run: str
    datadir: Path
    expdir: Path
    overrides: list[str]
    python: str

    @property
    def folder(self) -> Path:
        return self.expdir / self.run

    def rows(self) -> list[dict[str, float]]:
        """Return the rows of metrics.jsonl, without a partly written last line."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def step(self) -> int:
        """Return the last logged step, 0 before the first."""
        rows = self.rows()
        return int(rows[-1]["step"]) if rows else 0

    def losses(self) -> list[float]:
        return [row["loss"] for row in self.rows()]

    def newest_checkpoint(self) -> int:
        """Return the step of the newest complete checkpoint, 0 if there is none."""
        return max((int(path.parent.name[5:]) for path in self.folder.glob("checkpoints/step-*/COMPLETE")), default=0)

    def digest(self) -> str:
        """Return the SHA-256 of the final weights, an empty string if there are none."""
        weights = self.folder / "final" / "model.safetensors"
        return hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else ""


class Job:
    """The recipe's command on `num_nodes` hosts with `ranks` processes each, started immediately."""

    def __init__(self, hosts: Hosts, experiment: Experiment, logs: Path, num_nodes: int, ranks: int, restarts: int):
        self.hosts, self.experiment, self.num_nodes, self.ranks = hosts, experiment, num_nodes, ranks
        self.restarts = restarts
        logs.mkdir(parents=True, exist_ok=True)
        attempt = len(list(logs.glob("*-host0.log"))) + 1
        self.logs = [logs / f"{attempt}-host{host}.log" for host in range(num_nodes)]
        self.started, self.ended = time.monotonic(), [0.0] * num_nodes
        self.processes = [self._start(host) for host in range(num_nodes)]

    def _start(self, host: int) -> subprocess.Popen:
        env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        env |= {"GLOO_SOCKET_IFNAME": "eth0", "TP_SOCKET_IFNAME": "eth0"}
        with self.logs[host].open("w") as log:
            command = self.hosts.command(host, *self._recipe(host))
            return subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)

    def _recipe(self, host: int) -> list[str]:
        experiment = self.experiment
        words = [
            str(ROOT / "egs/librispeech/run.sh"),
            "--stage",
            "3",
            "--stop_stage",
            "3",
            "--python",
            experiment.python,
        ]
        words += ["--conf", str(experiment.conf), "--variants", experiment.run, "--datadir", str(experiment.datadir)]
        words += ["--expdir", str(experiment.expdir), "--ngpu", str(self.ranks)]
        words += ["--max_restarts", str(self.restarts), "--train_args", " ".join(experiment.overrides)]
        if self.num_nodes > 1:
            words += ["--num_nodes", str(self.num_nodes), "--node_rank", str(host)]
            words += ["--master_addr", self.hosts.addresses[0]]
        return words

    def until(self, step: int, timeout: float) -> None:
        """Wait until this step is logged. Raises RuntimeError if the run ends or the time is up before."""
        deadline = time.monotonic() + timeout
        while self.experiment.step() < step:
            if any(p.poll() is not None for p in self.processes) or time.monotonic() > deadline:
                raise RuntimeError(f"step {step} was not reached; see {self.logs[0]}")
            time.sleep(0.05)

    def wait(self, timeout: float) -> list[int]:
        """Wait until the command has ended on every host, kill it after the timeout, and return the exit statuses."""
        deadline = time.monotonic() + timeout
        while any(p.poll() is None for p in self.processes) and time.monotonic() < deadline:
            self._note_ends()
            time.sleep(0.05)
        self._note_ends()
        for host, process in enumerate(self.processes):
            if process.poll() is None:
                self.hosts.kill(host)
        return [process.wait() for process in self.processes]

    def _note_ends(self) -> None:
        for host, process in enumerate(self.processes):
            if not self.ended[host] and process.poll() is not None:
                self.ended[host] = time.monotonic()

    def leftover(self, patience: float = 20.0) -> int:
        """Count the processes that are still alive on the hosts after `patience` seconds."""
        deadline, count = time.monotonic() + patience, 1
        while count and time.monotonic() < deadline:
            time.sleep(0.1)
            count = sum(len(self.hosts.pids(host)) for host in range(self.num_nodes))
        return count

    def workers(self) -> dict[int, int]:
        """Return the process id of each rank."""
        found = {}
        for pid in self._pids(lambda words: b"arkasr\0train\0" in words):
            if rank := re.search(rb"(?:^|\0)RANK=(\d+)\0", _read(pid, "environ")):
                found[int(rank[1])] = pid
        return found

    def agent(self, host: int) -> int:
        """Return the process id of torchrun on one host."""
        on_host = set(self.hosts.pids(host))
        return min(
            on_host & set(self._pids(lambda words: words.split(b"\0")[1:3] == [b"-m", b"torch.distributed.run"]))
        )

    def _pids(self, wanted: Callable[[bytes], bool]) -> list[int]:
        every = [pid for host in range(self.num_nodes) for pid in self.hosts.pids(host)]
        return [pid for pid in every if wanted(_read(pid, "cmdline"))]

    def text(self) -> str:
        """Return the output of all hosts."""
        return "\n".join(log.read_text(errors="replace") for log in self.logs)

    def resumed_from(self) -> int:
        """Return the step from which this launch resumed, 0 if it started from the beginning."""
        found = re.search(r"resuming from \S+ \(step (\d+)\)", self.text())
        return int(found[1]) if found else 0


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended in the meantime
        return b""
