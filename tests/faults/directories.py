"""A directory is not as it was left: damaged checkpoints, another model's, other settings, a second run."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attempts import Attempt, wait_for
from fault_bench import Bench


def _harmed(bench: Bench, harm: Callable[[Path], None], said: str) -> dict[str, Any]:
    run = bench.run(save_every=4)
    attempt = run.start()
    wait_for(lambda: run.saved() >= 12)
    attempt.kill_all()
    newest, reached = run.newest(), run.step()
    harm(newest)
    end = bench.to_the_end(run)
    after = run.attempts[1]
    before = int(newest.name[5:]) - 4
    named = not said or f"{newest}: {said}" in after.text()
    return end | {
        "moments": 1,
        "lost_max": reached - after.resumed_from(),
        "ok": end["ok"] and after.resumed_from() == before and named,
    }


def truncated(bench: Bench) -> dict[str, Any]:
    """The newest checkpoint's weights lack their last bytes."""

    def harm(newest: Path) -> None:
        weights = max((newest / "weights").glob("*.distcp"))
        with weights.open("r+b") as file:
            file.truncate(weights.stat().st_size - 100)

    return _harmed(bench, harm, "weights/")


def unmarked(bench: Bench) -> dict[str, Any]:
    """The newest checkpoint has no COMPLETE."""
    return _harmed(bench, lambda newest: (newest / "COMPLETE").unlink(), "")


def without_generators(bench: Bench) -> dict[str, Any]:
    """The newest checkpoint lacks a rank's state of the random generators."""
    return _harmed(bench, lambda newest: (newest / f"rng-{bench.ranks - 1:05d}.pt").unlink(), "rng-")


def of_another_model(bench: Bench) -> dict[str, Any]:
    """Checkpoints of a model of other sizes lie in the directory: refused, and left alone."""
    other, run = bench.run(save_every=4), bench.run(save_every=4)
    attempt = other.start("model.sizes.text.intermediate_size=48")
    wait_for(lambda: other.saved() >= 8)
    attempt.kill_all()
    shutil.copytree(other.folder / "checkpoints", run.folder / "checkpoints")
    refused = run.finish()
    listed = sorted(run.folder.glob("checkpoints/step-*"))
    ok = _refused(bench, refused, "holds another model") and len(listed) > 0
    return {"moments": 1, "status": refused.status, "said": refused.sentence(), "ok": ok}


def _refused(bench: Bench, attempt: Attempt, said: str) -> bool:
    return (attempt.status == 2 or bench.ranks > 1) and attempt.status != 0 and said in attempt.text()


def twice(bench: Bench) -> dict[str, Any]:
    """A second run is started on the directory of one at work."""
    run = bench.run(save_every=4)
    first = run.start()
    wait_for(lambda: run.step() >= 2)
    first.send(signal.SIGSTOP)  # or it would be done before the second has begun
    second = run.finish()
    took = time.monotonic() - second.started
    first.send(signal.SIGCONT)
    status = first.wait()
    equal = run.digest() == bench.digest
    ok = _refused(bench, second, "another process is training here") and status == 0 and equal
    return {
        "moments": 1, "lost_max": 0, "equal": equal, "end_seconds": took, "status": second.status,
        "said": second.sentence(), "ok": ok,
    }  # fmt: skip


def other_settings(bench: Bench) -> dict[str, Any]:
    """Settings change between two starts: those that change the experiment are refused by name, others are taken."""
    run = bench.run(save_every=4)
    attempt = run.start()
    wait_for(lambda: run.step() >= 10)
    attempt.kill_all()
    refused = run.finish("optim.lr=0.5", "seed=7")
    named = _refused(bench, refused, "made with other settings (seed, optim.lr)")
    end = bench.to_the_end(run, "train.save_every=3", "train.keep=1", "data.num_workers=1", "train.spike_factor=5")
    return end | {"moments": 2, "status": refused.status, "said": refused.sentence(), "ok": end["ok"] and named}
