"""The error rate on some dev clips while training goes on."""

from __future__ import annotations

from pathlib import Path

import torch

from arkasr.config.schema import DecodeConfig
from arkasr.data.batches import SILENCE, Batch, load_batch
from arkasr.data.manifests import read_cuts
from arkasr.evaluation.hypotheses import transcribe
from arkasr.evaluation.normalize import normalizer
from arkasr.evaluation.results_io import read_corpus_facts
from arkasr.model.sharding import gathered
from arkasr.model.speech_lm.auto import SpeechLM


class DevSet:
    """The first `num_clips` clips of a dev manifest, this rank's share, scored as the corpus's test sets are."""

    def __init__(self, path: str, num_clips: int, rank: int = 0, world_size: int = 1):
        corpus = read_corpus_facts(Path(path).parent)
        self.metric, self.normalize = corpus["metric"], normalizer(corpus["normalizer"])
        cuts = sorted(list(read_cuts(path))[:num_clips], key=lambda c: -c.duration)
        self.cuts = cuts[rank::world_size]
        self._batches: list[Batch] | None = None

    def batches(self, max_seconds: float) -> list[Batch]:
        """Read the audio once and keep it."""
        if self._batches is None:
            group = max(1, int(max_seconds // max(self.cuts[0].duration, 1.0))) if self.cuts else 1
            self._batches = [load_batch(self.cuts[i : i + group]) for i in range(0, len(self.cuts), group)]
        return self._batches

    @torch.no_grad()
    def errors(self, lm: SpeechLM, config: DecodeConfig) -> dict[str, float]:
        """Count `errors` and reference `words` (characters for CER) on this rank's clips."""
        from arkasr.evaluation.score import count

        batches = [b for b in self.batches(config.max_seconds) if b.ids]
        lm.eval()
        with gathered(lm):
            made = lm(lambda inner: [transcribe(inner, b, config) for b in batches or [SILENCE]])[: len(batches)]
        lm.train()
        texts = [self.normalize(t) for b in batches for t in b.texts]
        tally = count(texts, [self.normalize(h["hypothesis"]) for rows in made for h in rows], self.metric)
        return {"errors": float(tally.errors.sum()), "words": float(tally.lengths.sum())}
