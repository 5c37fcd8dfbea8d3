"""Where the numbers of each run are written: metrics.jsonl, TensorBoard and the progress line."""

from __future__ import annotations

import json
import math
import threading
from collections import defaultdict
from pathlib import Path

from arkasr.errors import is_disk_full
from arkasr.training.length import RunLength
from arkasr.utils.console import Progress, log
from arkasr.utils.files import write_text


def drop_rows_after(path: Path, step: int) -> None:
    """Remove the rows of later steps, which a resumed run writes again, and lines that are torn.

    Args:
        path: A file of JSON lines with a key `step`. It need not exist.
        step: The last step whose rows are kept.
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    steps = [_step(line) for line in lines]
    if torn := [number for number, found in enumerate(steps[:-1], 1) if found is None]:  # a kill may tear the last one
        log(f"warning: {path}: {len(torn)} damaged lines removed, the first is line {torn[0]}")
    kept = [line + "\n" for line, found in zip(lines, steps, strict=True) if found is not None and found <= step]
    write_text(path, "".join(kept))


def _step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return None


def significant(value: float) -> float:
    """Round a logged number to 9 significant digits, so that small learning rates keep their digits.

    Args:
        value: Any number.

    Returns:
        Whole numbers unchanged, others rounded.
    """
    return value if not math.isfinite(value) or float(value).is_integer() else float(f"{value:.9g}")


def _ignore_disk_full(failure: threading.ExceptHookArgs) -> None:
    """Hide the traceback of TensorBoard's thread on a full disk: the run itself reports the full disk."""
    if not (isinstance(failure.exc_value, BaseException) and is_disk_full(failure.exc_value)):
        threading.__excepthook__(failure)


class MetricsLog:
    """Write metrics.jsonl and TensorBoard events on rank 0, and show the progress line.

    Args:
        folder: The run's directory.
        run: Name of the run, for the progress line.
        length: Length of the run. Rows of steps that it has not taken are removed from metrics.jsonl.
        writes: Whether this rank writes files.

    Attributes:
        dev: Text about the latest dev error, appended to the progress line.
    """

    def __init__(self, folder: Path, run: str, length: RunLength, writes: bool):
        self.path, self.writer, self.file = folder / "metrics.jsonl", None, None
        if writes:
            from torch.utils.tensorboard import SummaryWriter

            drop_rows_after(self.path, length.step)
            self.file = self.path.open("a", encoding="utf-8")
            threading.excepthook = _ignore_disk_full  # never restored: TensorBoard's thread may outlive this object
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=length.step + 1)
        self.length = length
        self.progress = Progress(f"train {run}", length.expected_steps or None, "steps", initial=length.step)
        self.dev = ""
        self.since_last_row: dict[str, float] = defaultdict(float)

    def add(self, step: int, row: dict[str, float], due: bool) -> None:
        """Add up tokens and times of one step, and write a row if one is due.

        Args:
            step: Number of the step, counted from 1.
            row: Metrics of the step by name, with `tokens` and `time/<phase>` in seconds.
            due: Whether to write the row. Its times and token rate cover all steps since the previous row.
        """
        for name in ("tokens", *(n for n in row if n.startswith("time/"))):
            self.since_last_row[name] += row[name]
        if not due:
            return
        tokens = self.since_last_row.pop("tokens")
        rate = {"tokens_per_second": tokens / self.since_last_row["time/step"]}
        self._write(step, row | self.since_last_row | rate)
        self.since_last_row.clear()

    def _write(self, step: int, row: dict[str, float]) -> None:
        if self.file is None or self.writer is None:
            return
        self.file.write(json.dumps({"step": step, **{k: significant(v) for k, v in row.items()}}) + "\n")
        self.file.flush()
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)

    def advance(self, row: dict[str, float]) -> None:
        """Move the progress line by one step.

        Args:
            row: Metrics of the step. `hours_seen`, `epochs_seen`, `loss` and, in distillation, `vuss` are shown, "-" if
                nothing was scored.
        """
        of = "" if self.length.unit == "steps" else f" of {self.length.total:g}"
        hours, epochs = f"{row['hours_seen']:.2f}", f"{row['epochs_seen']:.2f}"
        hours, epochs = hours + of * (self.length.unit == "hours"), epochs + of * (self.length.unit == "epochs")
        self.progress.total = self.length.expected_steps or None
        vuss = f", vuss {row['vuss']:.1f}" if "vuss" in row else ""
        loss = f"{row['loss']:.3f}" if "loss" in row else "-"
        self.progress.update(note=f"{hours} h, epoch {epochs}, loss {loss}{vuss}{self.dev}")

    def close(self) -> None:
        """Flush and close all files."""
        self.progress.close()
        if self.file is not None and self.writer is not None:
            self.file.close()
            self.writer.close()
