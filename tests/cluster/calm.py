"""Scenarios in which nothing ends before its time: each returns a row of the summary."""

from __future__ import annotations

import random
import signal
import threading
import time
from itertools import pairwise

from bench import ENDS, STARTS, Bench, Row
from job import send


def undisturbed(bench: Bench) -> Row:
    """All hosts to the end: what the other scenarios are compared with."""
    made = bench.experiment("undisturbed")
    job = bench.launch(made)
    statuses = job.wait(ENDS)
    bench.undisturbed, bench.losses = made.digest(), tuple(made.losses())
    bench.step_seconds = sum(row["time/step"] for row in made.rows()) / max(len(made.rows()), 1)
    written, took = job.text().count(f"{made.folder / 'final'}: written"), max(job.ended) - job.started
    kept = [path.name for path in sorted((made.folder / "checkpoints").glob("*"))]
    return {
        "scenario": "undisturbed",
        "statuses": statuses,
        "seconds": took,
        "note": f"{len(bench.losses)} steps of {bench.step_seconds:.2f} s; final/ written {written} time(s); "
        f"checkpoints {', '.join(kept)}; loss {bench.losses[0]:.3f} ... {bench.losses[-1]:.3f}",
        "ok": not any(statuses) and written == 1 and len(bench.losses) == bench.steps,
    }


def one_process(bench: Bench) -> Row:
    """One process that takes the clips of all ranks a step."""
    made = bench.experiment("one_process", f"train.accumulate={bench.world_size}")
    job = bench.launch(made, 1, 1)
    statuses = job.wait(ENDS)
    apart, took = _largest_difference(bench.losses, made.losses()), max(job.ended) - job.started
    return {
        "scenario": "one_process",
        "did": f"train.accumulate={bench.world_size}",
        "statuses": statuses,
        "seconds": took,
        "note": f"loss a step within {apart:.1e} (relative) of that of {bench.world_size} ranks",
        "loss_apart": apart,
        "ok": not any(statuses) and apart < 1e-3,
    }


def _largest_difference(some: tuple[float, ...], others: list[float]) -> float:
    if len(some) != len(others) or not some:
        return float("inf")
    return max(abs(a - b) / abs(b) for a, b in zip(some, others, strict=True))


def repeated(bench: Bench) -> Row:
    """The undisturbed run once more: are two the same to the bit?"""
    made = bench.experiment("repeated")
    job = bench.launch(made)
    statuses = job.wait(ENDS)
    same = bench.same(made)
    took = max(job.ended) - job.started
    return {
        "scenario": "repeated",
        "statuses": statuses,
        "seconds": took,
        "same": same,
        "ok": same and not any(statuses),
    }


def rank_slow(bench: Bench) -> Row:
    """A rank gets a tenth of its time only."""
    rank = random.Random(bench.seed + 2).randrange(bench.world_size)
    made = bench.experiment("rank_slow")
    job = bench.launch(made)
    job.until(1, STARTS)
    victim, done = job.workers()[rank], threading.Event()
    brake = threading.Thread(target=_brake, args=(victim, done))
    brake.start()
    try:
        statuses = job.wait(ENDS)
    finally:
        done.set()
        brake.join()
    rows = made.rows()[1:]
    slow = sum(row["time/step"] for row in rows) / max(len(rows), 1)
    phases = {name: sum(r[name] for r in rows) / len(rows) for name in rows[0] if name.startswith("time/")}
    return {
        "scenario": "rank_slow",
        "did": f"rank {rank} stopped nine tenths of the time",
        "statuses": statuses,
        "same": bench.same(made),
        "seconds": max(job.ended) - job.started,
        "note": f"a step {slow:.2f} s instead of {bench.step_seconds:.2f} s; "
        + ", ".join(f"{name} {seconds:.2f}" for name, seconds in sorted(phases.items())),
        "ok": not any(statuses) and bench.same(made),
    }


def _brake(pid: int, done: threading.Event) -> None:
    while not done.is_set():
        send(pid, signal.SIGSTOP)
        time.sleep(0.45)
        send(pid, signal.SIGCONT)
        time.sleep(0.05)


def fewer(bench: Bench) -> Row:
    """All hosts, then one of them, then one process: the run goes on each time."""
    made, launches = bench.experiment("fewer"), []
    for nodes, ranks, until in ((0, 0, bench.middle), (1, bench.ranks, bench.middle + bench.save_every), (1, 1, 0)):
        job = bench.launch(made, nodes, ranks)
        if until:
            job.until(until, STARTS)
            for host in range(bench.hosts.count):
                bench.hosts.kill(host)
        statuses = job.wait(ENDS)
        launches.append((job.num_nodes * job.ranks, job.resumed_from(), made.step(), made.newest_checkpoint()))
    steps, losses = [row["step"] for row in made.rows()], made.losses()
    told = "; ".join(f"{size} ranks: steps {start + 1} to {end}" for size, start, end, _ in launches)
    clips = [int(row["clips"]) for row in made.rows()]
    lost = [before[2] - after[1] for before, after in pairwise(launches)]
    whole = all(before[3] == after[1] for before, after in pairwise(launches))
    return {
        "scenario": "fewer",
        "did": " -> ".join(str(launch[0]) for launch in launches),
        "statuses": statuses,
        "repeated": max(lost),
        "losses": losses,
        "note": f"{told}; clips a step {clips}; loss {losses[0]:.3f} ... {losses[-1]:.3f}",
        "ok": not any(statuses) and steps == list(range(1, bench.steps + 1)) and whole,
    }
