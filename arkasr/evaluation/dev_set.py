"""Error rate on part of the dev set during training."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import Cut

from arkasr.config.schema import DecodeConfig
from arkasr.data.batches import SILENCE, Batch, load_batch
from arkasr.data.checks import Rules
from arkasr.data.manifests import is_empty_set, read_cuts, shards
from arkasr.data.mix import leaves
from arkasr.errors import UserError
from arkasr.evaluation.hypotheses import transcribe
from arkasr.evaluation.results_io import TestSet, read_corpus_facts, test_set
from arkasr.model.ctc_head import greedy_ctc
from arkasr.model.sharding import gathered
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.utils.console import log

SEED = 0  # of the sample. It is the same in all runs, so that their dev error rates can be compared


def sample_over_speakers(cuts: Sequence[Cut], size: int) -> list[Cut]:
    """Draw clips at random, spread over speakers: one clip of each speaker, then a second one, and so on.

    Speakers and their clips are in a seeded order, which does not depend on the order of the manifest. Clips without a
    speaker are drawn at random, in proportion to their share.

    Args:
        cuts: All clips.
        size: Number of clips to draw.

    Returns:
        The drawn clips, all if there are no more.
    """
    rng, groups = random.Random(SEED), defaultdict(list)
    for cut in sorted(cuts, key=lambda cut: cut.id):
        groups[speaker_of(cut)].append(cut)
    for clips in groups.values():
        rng.shuffle(clips)
    unknown, size = groups.pop("", []), min(size, len(cuts))
    speakers = sorted(groups)
    rng.shuffle(speakers)
    rounds = zip_longest(*(groups[speaker] for speaker in speakers))
    by_speaker = [cut for clips in rounds for cut in clips if cut is not None]
    known = max(size - round(size * len(unknown) / max(len(cuts), 1)), size - len(unknown))
    chosen = by_speaker[:known]
    return chosen + unknown[: size - len(chosen)]


def speaker_of(cut: Cut) -> str:
    """Return the clip's speaker.

    Args:
        cut: The clip.

    Returns:
        The speaker of its first supervision, empty if unknown.
    """
    return str(cut.supervisions[0].speaker or "") if cut.supervisions else ""


def _corpus_of(path: str) -> dict[str, Any]:
    """Return the content of `corpus.json` in the folder of a manifest, which own manifests may lack."""
    folders = [shards(path)[0].parent, Path(path).absolute().parent]
    for folder in folders if Path(path).is_dir() else folders[:1]:
        if (folder / "corpus.json").is_file():
            return read_corpus_facts(folder)
    raise UserError(
        f"{path}: there is no corpus.json beside it, which gives the scoring profile of the dev error rate; run the "
        "recipe from --stage 1, copy the corpus.json of this corpus there, or set train.eval_every=0"
    )


def dev_sets(path: str, num_clips: int, rank: int = 0, world_size: int = 1, rules: Rules | None = None) -> list[DevSet]:
    """Open a dev manifest, or each member of a mix with its own scoring profile.

    Args:
        path: Dev manifest or mix.
        num_clips: Number of clips, divided evenly over the members of a mix. At least one of each is used.
        rank: See `DevSet`.
        world_size: See `DevSet`.
        rules: See `DevSet`.

    Returns:
        The dev sets, one for a single manifest. None for sets that stage 1 left empty.

    Raises:
        UserError: See `DevSet`.
    """
    found, rules = [one for one in leaves(path) if not is_empty_set(one.path)], rules or Rules()
    if not found:
        log(f"{path}: the corpus has no dev set, so the dev error rate is not measured")
        return []
    size = max(num_clips // len(found), 1)
    return [DevSet(one.path, size, rank, world_size, replace(rules, prefix=one.prefix)) for one in found]


class DevSet:
    """One rank's share of a sample of a dev manifest, scored as `arkasr score` scores the test sets.

    Args:
        path: Dev manifest, no mix. `corpus.json` beside it gives the scoring profile.
        num_clips: Number of clips, see `sample_over_speakers`. They are divided over all ranks.
        rank: Rank of this process.
        world_size: Number of processes.
        rules: See `arkasr.data.manifests.read_cuts`.

    Raises:
        UserError: The manifest or its `corpus.json` is missing or broken.

    Attributes:
        path: The dev manifest.
        name: Name of the member of a mix, such as `aishell`. Empty otherwise.
        cuts: The cuts of this rank, longest first.
        metric: `wer` or `cer`.
        scoring: How it is scored: profile, metric and language.
        num_too_long: Clips of this rank that are longer than the model accepts, known after the first batches.
        transcripts: Normalised hypothesis and reference of each clip of this rank, from the last call of `errors`.
    """

    def __init__(self, path: str, num_clips: int, rank: int = 0, world_size: int = 1, rules: Rules | None = None):
        self.path, self.name = path, rules.prefix.rstrip("/") if rules else ""
        self.scoring: TestSet = test_set(_corpus_of(path), "dev", Path(path).parent)
        self.metric = self.scoring.metric
        found = list(read_cuts(path, rules))
        sample = sample_over_speakers(found, num_clips)
        speakers = [len({speaker_of(cut) for cut in cuts} - {""}) for cuts in (sample, found)]
        named = f", speakers {speakers[0]} of {speakers[1]}" if speakers[1] else ""
        log(f"{path}: dev clips {len(sample)} of {len(found)}{named}")
        self.cuts = sorted(sample, key=lambda cut: (-cut.duration, cut.id))[rank::world_size]
        self.transcripts: list[tuple[str, str]] = []
        self.num_too_long = 0
        self._batches: list[Batch] | None = None

    def batches(self, max_seconds: float, longest: float | None = None) -> list[Batch]:
        """Return the clips in batches. The audio is read in the first call and kept.

        Args:
            max_seconds: Maximum audio seconds per batch, padding included. Only the first call uses it.
            longest: Longest clip in seconds that the model accepts, or None. Only the first call uses it.

        Returns:
            Batches of this rank's clips. Clips that are longer or could not be read are left out.
        """
        if self._batches is None:
            cuts = [cut for cut in self.cuts if longest is None or cut.duration <= longest]
            self.num_too_long = len(self.cuts) - len(cuts)
            if self.num_too_long:
                what = f"{self.num_too_long} clips are left out, longer than the {longest:g} s that the model accepts"
                log(f"{f'dev {self.name}'.strip()}: {what}")
            group = max(1, int(max_seconds // max(cuts[0].duration, 1.0))) if cuts else 1
            self._batches = [load_batch(cuts[i : i + group]) for i in range(0, len(cuts), group)]
        return self._batches

    @torch.no_grad()
    def errors(
        self,
        lm: SpeechLM,
        config: DecodeConfig,
        progress: Callable[[], None] = lambda: None,
        head_alone: bool = False,
    ) -> dict[str, float]:
        """Count the errors of greedy transcripts on this rank's clips.

        All ranks must call this together, because sharded weights are gathered. A rank without clips decodes silence
        and ignores the result. The model is in training mode afterwards.

        Args:
            lm: The model to evaluate.
            config: Decoding settings.
            progress: Called after each batch.
            head_alone: Count the errors of the CTC head's transcripts, and do not decode: the decoder is not trained.

        Returns:
            `errors`, `words`: the reference length in words (in characters for CER), `clips` that were decoded, and
            `failed`: clips that could not be read or are longer than the model accepts. With a CTC head also
            `ctc_errors`, those of its greedy transcripts.
        """
        loaded = self.batches(config.max_seconds, lm.max_seconds)
        batches, by_head = [batch for batch in loaded if batch.ids], list[str]()

        def decode(inner: SpeechLM) -> list[list[dict[str, Any]]]:
            decoded = []
            for batch in batches or [SILENCE]:
                texts = greedy_ctc(inner, batch.waveforms) if inner.ctc_head is not None else []
                by_head.extend(texts)
                rows = [{"hypothesis": text} for text in texts] if head_alone else transcribe(inner, batch, config)
                decoded.append(rows)
                progress()
            return decoded

        lm.eval()
        with gathered(lm):
            decoded = lm(decode)[: len(batches)]
        lm.train()
        profile, rules = self.scoring.profile, self.scoring.rules
        references = profile.normalize_all([text for batch in batches for text in batch.texts], rules)
        hypotheses = profile.normalize_all([row["hypothesis"] for rows in decoded for row in rows], rules)
        self.transcripts = list(zip(hypotheses, references, strict=True))
        tally = profile.count(references, hypotheses, rules)
        sums = {"errors": float(tally.errors.sum()), "words": float(tally.lengths.sum())}
        if lm.ctc_head is not None:
            texts = profile.normalize_all(by_head[: len(references)], rules)
            sums["ctc_errors"] = float(profile.count(references, texts, rules).errors.sum())
        failed = self.num_too_long + sum(batch.num_failed for batch in loaded)
        return sums | {"clips": float(len(references)), "failed": float(failed)}
