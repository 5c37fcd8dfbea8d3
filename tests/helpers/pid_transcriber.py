"""A transcriber for other processes, which import this module. Its rows name the process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from arkasr.data.batches import Batch
from arkasr.evaluation.hypotheses import row
from arkasr.evaluation.one_by_one import Transcriber

made = 0


def make_transcriber(
    device: str, dtype: str, raises: Mapping[str, Exception] | None = None, broken: bool = False
) -> Transcriber:
    """Return a function that transcribes the dtype and the number of samples, or raises the error for a clip."""
    global made
    made += 1
    number = made
    if broken:
        raise KeyError("broken")

    def transcribe(batch: Batch) -> list[dict[str, Any]]:
        for error in ((raises or {}).get(name) for name in batch.ids):
            if error is not None:
                raise error
        extra = {"pid": os.getpid(), "made": number}
        return [row(batch, i, f"{dtype} {len(w)}") | extra for i, w in enumerate(batch.waveforms)]

    return transcribe
