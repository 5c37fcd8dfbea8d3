"""Scenarios in which something is killed, lost or stopped: each returns a row of the summary."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable

from bench import ENDS, STARTS, Bench, Row
from job import Job, send


def _disturb(bench: Bench, name: str, harm: Callable[[Job], str], restore: Callable[[], None] = lambda: None) -> Row:
    """Harm a run between two saves, see it end, and give the same command again."""
    made = bench.experiment(name)
    job = bench.launch(made)
    job.until(bench.middle, STARTS)
    did, harmed, whole = harm(job), time.monotonic(), made.newest_checkpoint()
    statuses = job.wait(ENDS)
    orphans, reached = job.leftover(), made.step()
    time.sleep(3 * bench.step_seconds)
    went_on, whole = made.step() - reached, max(whole, made.newest_checkpoint())
    for host in range(bench.hosts.count):  # a host that comes back comes back empty
        bench.hosts.kill(host)
    restore()
    again = bench.launch(made)
    after = again.wait(ENDS)
    same, again_from = bench.same(made), again.resumed_from()
    return {
        "scenario": name,
        "did": did,
        "ended_after": round(max(job.ended) - harmed, 1),
        "statuses": statuses,
        "orphans": orphans,
        "steps_by_orphans": went_on,
        "at_step": reached,
        "resumed_from": again_from,
        "repeated": reached - again_from,
        "same": same,
        "seconds": max(again.ended) - again.started,
        "ok": any(statuses) and not any(after) and not orphans and not went_on and same and again_from == whole,
        "note": _said(job),
    }


def _said(job: Job) -> str:
    """Return what the watchdog said, if it did."""
    found = re.search(r"arkasr: rank \d+[^:]*: no progress.*", job.text())
    return found[0] if found else ""


def rank_killed(bench: Bench) -> Row:
    """Signal 9 to a rank drawn at random."""
    rank = random.Random(bench.seed).randrange(bench.world_size)

    def harm(job: Job) -> str:
        send(job.workers()[rank], signal.SIGKILL)
        return f"kill -9 of rank {rank}"

    return _disturb(bench, "rank_killed", harm)


def rank_restarted(bench: Bench) -> Row:
    """Signal 9 to a rank where torchrun may start all of them again: the command is not given twice."""
    rank, made = random.Random(bench.seed).randrange(bench.world_size), bench.experiment("rank_restarted")
    job = bench.launch(made, restarts=1)
    job.until(bench.middle, STARTS)
    send(job.workers()[rank], signal.SIGKILL)
    reached, statuses = made.step(), job.wait(ENDS)
    same = bench.same(made)
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
    """A host goes without a word to the others."""
    return _host_lost(bench, "last_host_lost", bench.hosts.count - 1)


def first_host_lost(bench: Bench) -> Row:
    """So does the one that holds the ranks' common store and writes the metrics."""
    return _host_lost(bench, "first_host_lost", 0)


def agent_killed(bench: Bench) -> Row:
    """Signal 9 to torchrun itself on the last host: its ranks must not go on without it, but save and end."""

    def harm(job: Job) -> str:
        send(job.agent(bench.hosts.count - 1), signal.SIGKILL)
        return f"kill -9 of torchrun on host{bench.hosts.count - 1}"

    row = _disturb(bench, "agent_killed", harm)
    return row | {"ok": row["ok"] and row["repeated"] == 0}


def rank_stopped(bench: Bench) -> Row:
    """A rank is stopped for good: the watchdog must name it."""
    rank = random.Random(bench.seed + 1).randrange(1, bench.world_size)

    def harm(job: Job) -> str:
        send(job.workers()[rank], signal.SIGSTOP)
        return f"SIGSTOP to rank {rank}"

    row = _disturb(bench, "rank_stopped", harm)
    named = re.findall(r"rank (\d+) on host", row["note"])
    return row | {"ok": row["ok"] and named == [str(rank)]}
