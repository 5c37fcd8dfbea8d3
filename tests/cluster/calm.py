"""Scenarios without a failure. Each returns one row of the summary."""

from __future__ import annotations

import random
import signal
import threading
import time
from itertools import pairwise

from bench import ENDS, STARTS, Bench, Row
from job import send


def undisturbed(bench: Bench) -> Row:
    """Train on all hosts to the end: the reference for all other scenarios."""
    experiment = bench.experiment("undisturbed")
    job = bench.launch(experiment)
    statuses = job.wait(ENDS)
    bench.undisturbed, bench.losses = experiment.digest(), tuple(experiment.losses())
    bench.step_seconds = sum(row["time/step"] for row in experiment.rows()) / max(len(experiment.rows()), 1)
    written, took = job.text().count(f"{experiment.folder / 'final'}: written"), max(job.ended) - job.started
    kept = [path.name for path in sorted((experiment.folder / "checkpoints").glob("*"))]
    return {
        "scenario": "undisturbed",
        "statuses": statuses,
        "seconds": took,
        "note": f"{len(bench.losses)} steps of {bench.step_seconds:.2f} s; final/ written {written} time(s); "
        f"checkpoints {', '.join(kept)}; loss {bench.losses[0]:.3f} ... {bench.losses[-1]:.3f}",
        "ok": not any(statuses) and written == 1 and len(bench.losses) == bench.steps,
    }


def one_process(bench: Bench) -> Row:
    """Train with one process that accumulates the clips of all ranks in each step."""
    experiment = bench.experiment("one_process", f"train.accumulate={bench.world_size}")
    job = bench.launch(experiment, 1, 1)
    statuses = job.wait(ENDS)
    difference, took = _largest_difference(bench.losses, experiment.losses()), max(job.ended) - job.started
    return {
        "scenario": "one_process",
        "did": f"train.accumulate={bench.world_size}",
        "statuses": statuses,
        "seconds": took,
        "note": f"largest relative difference of a loss from {bench.world_size} ranks: {difference:.1e}",
        "loss_difference": difference,
        "ok": not any(statuses) and difference < 1e-3,
    }


def _largest_difference(some: tuple[float, ...], others: list[float]) -> float:
    if len(some) != len(others) or not some:
        return float("inf")
    return max(abs(a - b) / abs(b) for a, b in zip(some, others, strict=True))


def repeated(bench: Bench) -> Row:
    """Repeat the undisturbed run: both must be bitwise equal."""
    experiment = bench.experiment("repeated")
    job = bench.launch(experiment)
    statuses = job.wait(ENDS)
    same = bench.same(experiment)
    took = max(job.ended) - job.started
    return {
        "scenario": "repeated",
        "statuses": statuses,
        "seconds": took,
        "same": same,
        "ok": same and not any(statuses),
    }


def rank_slow(bench: Bench) -> Row:
    """One rank runs only a tenth of the time."""
    rank = random.Random(bench.seed + 2).randrange(bench.world_size)
    experiment = bench.experiment("rank_slow")
    job = bench.launch(experiment)
    job.until(1, STARTS)
    victim, done = job.workers()[rank], threading.Event()
    brake = threading.Thread(target=_brake, args=(victim, done))
    brake.start()
    try:
        statuses = job.wait(ENDS)
    finally:
        done.set()
        brake.join()
    rows = experiment.rows()[1:]
    slow = sum(row["time/step"] for row in rows) / max(len(rows), 1)
    phases = {name: sum(r[name] for r in rows) / len(rows) for name in rows[0] if name.startswith("time/")}
    return {
        "scenario": "rank_slow",
        "did": f"rank {rank} stopped nine tenths of the time",
        "statuses": statuses,
        "same": bench.same(experiment),
        "seconds": max(job.ended) - job.started,
        "note": f"{slow:.2f} s per step instead of {bench.step_seconds:.2f} s; "
        + ", ".join(f"{name} {seconds:.2f}" for name, seconds in sorted(phases.items())),
        "ok": not any(statuses) and bench.same(experiment),
    }


def _brake(pid: int, done: threading.Event) -> None:
    while not done.is_set():
        send(pid, signal.SIGSTOP)
        time.sleep(0.45)
        send(pid, signal.SIGCONT)
        time.sleep(0.05)


def fewer(bench: Bench) -> Row:
    """Train on all hosts, then on one host, then in one process: the run must resume each time."""
    experiment, launches = bench.experiment("fewer"), []
    for nodes, ranks, until in ((0, 0, bench.middle), (1, bench.ranks, bench.middle + bench.save_every), (1, 1, 0)):
        job = bench.launch(experiment, nodes, ranks)
        if until:
            job.until(until, STARTS)
            for host in range(bench.hosts.count):
                bench.hosts.kill(host)
        statuses = job.wait(ENDS)
        launches.append(
            (job.num_nodes * job.ranks, job.resumed_from(), experiment.step(), experiment.newest_checkpoint())
        )
    steps, losses = [row["step"] for row in experiment.rows()], experiment.losses()
    ranges = "; ".join(f"{size} ranks: steps {start + 1} to {end}" for size, start, end, _ in launches)
    clips = [int(row["clips"]) for row in experiment.rows()]
    lost = [before[2] - after[1] for before, after in pairwise(launches)]
    whole = all(before[3] == after[1] for before, after in pairwise(launches))
    return {
        "scenario": "fewer",
        "did": " -> ".join(str(launch[0]) for launch in launches),
        "statuses": statuses,
        "repeated": max(lost),
        "losses": losses,
        "note": f"{ranges}; clips per step {clips}; loss {losses[0]:.3f} ... {losses[-1]:.3f}",
        "ok": not any(statuses) and steps == list(range(1, bench.steps + 1)) and whole,
    }
