"""Section `encoders` of `gpu.py`: audio encoders and features of both models, against the limit of arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from gpu_bench import Bench
from gpu_table import Row

from arkasr.planning import flops


@torch.no_grad()
def encoders(bench: Bench) -> Iterator[Row]:
    """Encode the batch with the student and with the teacher, without gradient.

    Args:
        bench: The inputs.

    Yields:
        Two rows per model: features, and `encode_audio`, which includes them.
    """
    case, numbers = bench.inputs, bench.numbers
    clips = case.batch.waveforms
    for name, lm in (("student", case.student), ("teacher", case.teacher.lm)):
        works = {"features": lambda lm=lm: lm.features(clips), "encode_audio": lambda lm=lm: lm.encode_audio(clips)}
        for part, work in works.items():
            row = Row("encoders", f"{name}: {part}", unit="ms")
            spent = bench.measure(work, row)
            row.value = 1000 * spent
            if bench.card.flops and part == "encode_audio":
                needed = len(clips) * sum(flops.audio_encoder(lm.hf.config, numbers.seconds).values())
                row.limit = needed / bench.card.flops / spent
            yield row
