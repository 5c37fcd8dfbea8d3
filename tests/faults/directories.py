"""Run directories in a bad state: damaged checkpoints, another model, other settings, a second run."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attempts import Attempt, wait_for
from fault_bench import Bench


def _resume_after(bench: Bench, harm: Callable[[Path], None], expected: str) -> dict[str, Any]:
    """Harm the newest checkpoint. The run must resume from the one before it and log a reason that starts so."""
    run = bench.run(save_every=4)
    attempt = run.start()
    wait_for(lambda: run.saved() >= 12)
    attempt.kill_all()
    newest, reached = run.newest(), run.step()
    harm(newest)
    end = bench.to_the_end(run)
    after = run.attempts[1]
    before = int(newest.name[5:]) - 4
    named = not expected or f"{newest}: {expected}" in after.text()
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

    return _resume_after(bench, harm, "weights/")


def unmarked(bench: Bench) -> dict[str, Any]:
    """The newest checkpoint has no COMPLETE."""
    return _resume_after(bench, lambda newest: (newest / "COMPLETE").unlink(), "")


def flipped_bit(bench: Bench) -> dict[str, Any]:
    """One bit of the newest checkpoint's weights is flipped."""

    def harm(newest: Path) -> None:
        weights = max((newest / "weights").glob("*.distcp"))
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)

    return _resume_after(bench, harm, "weights/")


def without_generators(bench: Bench) -> dict[str, Any]:
    """The newest checkpoint lacks the random generators of one rank."""
    return _resume_after(bench, lambda newest: (newest / f"rng-{bench.ranks - 1:05d}.json").unlink(), "rng-")


def of_another_model(bench: Bench) -> dict[str, Any]:
    """The directory holds checkpoints of a model of another size: they are refused and not changed."""
    other, run = bench.run(save_every=4), bench.run(save_every=4)
    attempt = other.start("model.sizes.text.intermediate_size=48")
    wait_for(lambda: other.saved() >= 8)
    attempt.kill_all()
    shutil.copytree(other.folder / "checkpoints", run.folder / "checkpoints")
    refused = run.finish()
    listed = sorted(run.folder.glob("checkpoints/step-*"))
    ok = _refused(bench, refused, "holds another model") and len(listed) > 0
    return {"moments": 1, "status": refused.status, "message": refused.user_error(), "ok": ok}


def _refused(bench: Bench, attempt: Attempt, message: str) -> bool:
    return (attempt.status == 2 or bench.ranks > 1) and attempt.status != 0 and message in attempt.text()


def twice(bench: Bench) -> dict[str, Any]:
    """A second run is started in the directory of a live run."""
    run = bench.run(save_every=4)
    first = run.start()
    wait_for(lambda: run.step() >= 2)
    first.send(signal.SIGSTOP)  # otherwise it would end before the second has started
    second = run.finish()
    took = time.monotonic() - second.started
    first.send(signal.SIGCONT)
    status = first.wait()
    equal = run.digest() == bench.digest
    ok = _refused(bench, second, "is using this folder") and status == 0 and equal
    return {
        "moments": 1, "lost_max": 0, "equal": equal, "end_seconds": took, "status": second.status,
        "message": second.user_error(), "ok": ok,
    }  # fmt: skip


def other_settings(bench: Bench) -> dict[str, Any]:
    """Settings change between two starts: settings with an effect on results are refused and named, others accepted."""
    run = bench.run(save_every=4)
    attempt = run.start()
    wait_for(lambda: run.step() >= 10)
    attempt.kill_all()
    refused = run.finish("optim.lr=0.5", "seed=7")
    named = _refused(bench, refused, "started with other settings (seed, optim.lr)")
    end = bench.to_the_end(run, "train.save_every=3", "train.keep=1", "data.num_workers=1", "train.spike_factor=5")
    return end | {"moments": 2, "status": refused.status, "message": refused.user_error(), "ok": end["ok"] and named}
