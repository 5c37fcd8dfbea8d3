"""Scenarios with a failure: something is killed, lost or stopped. Each returns one row of the summary."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable

from bench import ENDS, STARTS, Bench, Row
from job import Job, send


def _disturb(bench: Bench, name: str, harm: Callable[[Job], str], restore: Callable[[], None] = lambda: None) -> Row:
    """Harm a run between two saves, wait until it ends, and start the same command again."""
    experiment = bench.experiment(name)
    job = bench.launch(experiment)
    job.until(bench.middle, STARTS)
    did, harmed, newest = harm(job), time.monotonic(), experiment.newest_checkpoint()
    statuses = job.wait(ENDS)
    orphans, reached = job.leftover(), experiment.step()
    time.sleep(3 * bench.step_seconds)
    steps_by_orphans, newest = experiment.step() - reached, max(newest, experiment.newest_checkpoint())
    for host in range(bench.hosts.count):  # after a failure no process of the host is left
        bench.hosts.kill(host)
    restore()
    again = bench.launch(experiment)
    after = again.wait(ENDS)
    same, again_from = bench.same(experiment), again.resumed_from()
    clean = not orphans and not steps_by_orphans
    return {
        "scenario": name,
        "did": did,
        "ended_after": round(max(job.ended) - harmed, 1),
        "statuses": statuses,
        "orphans": orphans,
        "steps_by_orphans": steps_by_orphans,
        "at_step": reached,
        "resumed_from": again_from,
        "repeated": reached - again_from,
        "same": same,
        "seconds": max(again.ended) - again.started,
        "ok": any(statuses) and not any(after) and clean and same and again_from == newest,
        "note": _hang_message(job),
    }


def _hang_message(job: Job) -> str:
    """Return the message of the watchdog, an empty string if there is none."""
    found = re.search(r"arkasr: rank \d+[^:]*: no progress.*", job.text())
    return found[0] if found else ""


def rank_killed(bench: Bench) -> Row:
    """kill -9 of one rank, drawn at random."""
    rank = random.Random(bench.seed).randrange(bench.world_size)

    def harm(job: Job) -> str:
        send(job.workers()[rank], signal.SIGKILL)
        return f"kill -9 of rank {rank}"

    return _disturb(bench, "rank_killed", harm)


def rank_restarted(bench: Bench) -> Row:
    """kill -9 of one rank with restarts enabled: torchrun restarts all ranks, and the command is not repeated."""
    rank, experiment = random.Random(bench.seed).randrange(bench.world_size), bench.experiment("rank_restarted")
    job = bench.launch(experiment, restarts=1)
    job.until(bench.middle, STARTS)
    send(job.workers()[rank], signal.SIGKILL)
    reached, statuses = experiment.step(), job.wait(ENDS)
    same = bench.same(experiment)
    return {
        "scenario": "rank_restarted",
        "did": f"kill -9 of rank {rank}, --max_restarts 1",
        "statuses": statuses,
        "at_step": reached,
        "resumed_from": job.resumed_from(),
        "repeated": reached - job.resumed_from(),
        "same": same,
        "seconds": max(job.ended) - job.started,
        "ok": not any(statuses) and same,
    }


def _host_lost(bench: Bench, name: str, host: int) -> Row:
    def harm(job: Job) -> str:
        bench.hosts.unplug(host)
        bench.hosts.kill(host)
        return f"host{host} unplugged and all its processes killed"

    return _disturb(bench, name, harm, lambda: bench.hosts.plug(host))


def last_host_lost(bench: Bench) -> Row:
    """The last host is lost, without closing its connections."""
    return _host_lost(bench, "last_host_lost", bench.hosts.count - 1)


def first_host_lost(bench: Bench) -> Row:
    """The first host is lost, which holds the common store of the ranks and writes the metrics."""
    return _host_lost(bench, "first_host_lost", 0)


def agent_killed(bench: Bench) -> Row:
    """kill -9 of torchrun on the last host: its ranks must save and end."""

    def harm(job: Job) -> str:
        send(job.agent(bench.hosts.count - 1), signal.SIGKILL)
        return f"kill -9 of torchrun on host{bench.hosts.count - 1}"

    row = _disturb(bench, "agent_killed", harm)
    return row | {"ok": row["ok"] and row["repeated"] == 0}


def rank_stopped(bench: Bench) -> Row:
    """One rank is stopped with SIGSTOP: the watchdog must name it."""
    rank = random.Random(bench.seed + 1).randrange(1, bench.world_size)

    def harm(job: Job) -> str:
        send(job.workers()[rank], signal.SIGSTOP)
        return f"SIGSTOP to rank {rank}"

    row = _disturb(bench, "rank_stopped", harm)
    named = re.findall(r"rank (\d+) on host", row["note"])
    return row | {"ok": row["ok"] and named == [str(rank)]}
