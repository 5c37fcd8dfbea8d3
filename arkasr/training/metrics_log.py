"""Where a run's numbers go: one JSON line a logged step, TensorBoard, and the progress line."""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from pathlib import Path

from arkasr.errors import is_disk_full
from arkasr.utils.console import Progress


def drop_rows_after(path: Path, step: int) -> None:
    """Drop, from a file of JSON lines, rows of steps that a resumed run takes again, and one that a kill cut short."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    part = Path(f"{path}.part")  # else a kill right here would take the earlier rows along
    part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(part, path)


def _hush(failure: threading.ExceptHookArgs) -> None:
    """Say nothing where TensorBoard's thread meets a full disk: metrics.jsonl meets it too, and the run says so."""
    if not (isinstance(failure.exc_value, BaseException) and is_disk_full(failure.exc_value)):
        threading.__excepthook__(failure)


class MetricsLog:
    """Writes metrics.jsonl and TensorBoard events on the first rank; other ranks write nothing."""

    def __init__(self, folder: Path, run: str, steps: int, start: int, writes: bool):
        self.path, self.writer, self.file = folder / "metrics.jsonl", None, None
        if writes:
            from torch.utils.tensorboard import SummaryWriter

            drop_rows_after(self.path, start)
            self.file = self.path.open("a", encoding="utf-8")
            threading.excepthook = _hush  # for good: the thread may end after us
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self.progress = Progress(f"train {run}", steps, "steps", initial=start)
        self.dev, self.spent = "", defaultdict(float)

    def add(self, step: int, row: dict[str, float], due: bool) -> None:
        """Take a step's row; where one is due, write it with the times of all steps since the last."""
        for name in ("tokens", *(n for n in row if n.startswith("time/"))):
            self.spent[name] += row[name]
        if not due:
            return
        tokens = self.spent.pop("tokens")
        self._write(step, row | self.spent | {"tokens_per_second": tokens / self.spent["time/step"]})
        self.spent.clear()

    def _write(self, step: int, row: dict[str, float]) -> None:
        if self.file is None or self.writer is None:
            return
        self.file.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in row.items()}}) + "\n")
        self.file.flush()
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)

    def advance(self, row: dict[str, float]) -> None:
        """Move the progress line by one step."""
        vuss = f", vuss {row['vuss']:.1f}" if "vuss" in row else ""
        self.progress.update(note=f"loss {row['loss']:.3f}{vuss}{self.dev}")

    def close(self) -> None:
        """Flush and close everything."""
        self.progress.close()
        if self.file is not None and self.writer is not None:
            self.file.close()
            self.writer.close()
