"""Error rate on part of the dev set during training."""

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
    """One rank's share of the first clips of a dev manifest, scored as `arkasr score` scores the test sets.

    Args:
        path: Dev manifest. `corpus.json` beside it gives the metric and the normaliser.
        num_clips: Number of clips, taken from the start of the manifest and divided over all ranks.
        rank: Rank of this process.
        world_size: Number of processes.

    Attributes:
        cuts: The cuts of this rank, longest first.
        metric: `wer` or `cer`.
        normalize: Text normaliser of the corpus.
    """

    def __init__(self, path: str, num_clips: int, rank: int = 0, world_size: int = 1):
        corpus = read_corpus_facts(Path(path).parent)
        self.metric, self.normalize = corpus["metric"], normalizer(corpus["normalizer"])
        cuts = sorted(list(read_cuts(path))[:num_clips], key=lambda c: -c.duration)
        self.cuts = cuts[rank::world_size]
        self._batches: list[Batch] | None = None

    def batches(self, max_seconds: float) -> list[Batch]:
        """Return the clips in batches. The audio is read in the first call and kept.

        Args:
            max_seconds: Maximum audio seconds per batch, padding included. Only the first call uses it.

        Returns:
            Batches of this rank's clips. Clips that could not be read are left out.
        """
        if self._batches is None:
            group = max(1, int(max_seconds // max(self.cuts[0].duration, 1.0))) if self.cuts else 1
            self._batches = [load_batch(self.cuts[i : i + group]) for i in range(0, len(self.cuts), group)]
        return self._batches

    @torch.no_grad()
    def errors(self, lm: SpeechLM, config: DecodeConfig) -> dict[str, float]:
        """Count the errors of greedy transcripts on this rank's clips.

        All ranks must call this together, because sharded weights are gathered. A rank without clips decodes silence
        and ignores the result. The model is in training mode afterwards.

        Args:
            lm: The model to evaluate.
            config: Decoding settings.

        Returns:
            `errors`, and `words`: the reference length in words (in characters for CER).
        """
        from arkasr.evaluation.tally import count

        batches = [b for b in self.batches(config.max_seconds) if b.ids]
        lm.eval()
        with gathered(lm):
            decoded = lm(lambda inner: [transcribe(inner, b, config) for b in batches or [SILENCE]])[: len(batches)]
        lm.train()
        references = [self.normalize(text) for batch in batches for text in batch.texts]
        hypotheses = [self.normalize(row["hypothesis"]) for rows in decoded for row in rows]
        tally = count(references, hypotheses, self.metric)
        return {"errors": float(tally.errors.sum()), "words": float(tally.lengths.sum())}
