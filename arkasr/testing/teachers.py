"""Does an object keep what `arkasr.Teacher` and `arkasr.DistributionView` promise? Legend: see arkasr/interfaces.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from arkasr.interfaces import DistributionView, Teacher
from arkasr.testing.require import attempt, described, distance, requirer
from arkasr.testing.tiny import waveform
from arkasr.testing.views import TOP, check_view

require = requirer("check_teacher")
SAMPLES = (17600, 1600, 9000, 12000)  # 1.1 s to 0.1 s, the shortest clip that a run keeps
STEADY = 1e-3  # nats within which two computations agree where a greedy choice may be expected to
LONG, SHORT = "the quick brown fox jumps over the lazy dog", "one two three"


@dataclass
class _Clips:
    """What `Teacher.score` is asked: B clips and their transcripts."""

    waveforms: list[Tensor]
    languages: list[str]
    ids: list[list[int]]

    def pick(self, *clips: int) -> _Clips:
        return _Clips(*([items[i] for i in clips] for items in (self.waveforms, self.languages, self.ids)))

    def rows(self, clip: int) -> Tensor:
        ends = list(accumulate(map(len, self.ids), initial=0))
        return torch.arange(ends[clip], ends[clip + 1])


def check_teacher(teacher: Teacher, language: str = "English", tolerance: float = 1e-4) -> None:
    """Check that a teacher keeps the promises of `arkasr.Teacher`; raises AssertionError for the first that it breaks.

    Scored are four clips of 0.1 to 1.1 s, with transcripts that were ended, cut, and empty but for the stop. Checked
    are shapes, dtypes and device; true log-probabilities that sum to at most 1 (to exactly 1 where the view holds the
    whole distribution); topk, logprobs_at, at and entropy against one another; determinism; that a clip's numbers do
    not depend on what it is batched with; that row j has read the audio, the tokens before j and no other; that nothing
    asks for a gradient; one text a clip, the same twice (unless scoring twice differs by more than 0.001) and alone.
    language: any that the teacher knows. tolerance: of log-probabilities in nats between two computations of the same
    number; a teacher that computes in bfloat16 needs more than the default. Above 0.001 texts of a clip alone and in a
    batch may differ: rounding may turn a choice.
    """
    require(isinstance(teacher, Teacher), f"{described(teacher)} lacks tokenizer, stop_ids, score or transcribe")
    clips = _clips(teacher, language)
    view = _score(teacher, clips)
    check_view("check_teacher", view, sum(map(len, clips.ids)), tolerance)
    again = _check_repeatable(teacher, clips, view, tolerance)
    _check_reading(teacher, clips, tolerance)
    _check_frozen(teacher, clips)
    _check_texts(teacher, clips, twice=again <= STEADY, alone=tolerance <= STEADY)


def _clips(teacher: Teacher, language: str) -> _Clips:
    stops = list(teacher.stop_ids)
    require(stops and all(isinstance(i, int) and i >= 0 for i in stops), f"stop_ids must be ids, not {stops}")
    long, short = (teacher.tokenizer.encode(text, add_special_tokens=False) for text in (LONG, SHORT))
    long = (long * 8)[:8]  # eight, where the whole is one too
    ids = [[*long, stops[0]], [stops[0]], short, [*short, stops[0]]]
    return _Clips([waveform(n, seed) for seed, n in enumerate(SAMPLES)], [language] * len(ids), ids)


def _score(teacher: Teacher, clips: _Clips) -> DistributionView:
    """Score, and see that nothing that was handed over is written into."""
    waveforms, ids = [w.clone() for w in clips.waveforms], [list(i) for i in clips.ids]
    with attempt("check_teacher", f"score of {len(ids)} clips"):
        view = teacher.score(waveforms, list(clips.languages), ids)
    intact = ids == clips.ids and all(map(torch.equal, waveforms, clips.waveforms))
    require(intact, "score writes into the waveforms or token ids that it is given")
    return view


def _check_repeatable(teacher: Teacher, clips: _Clips, view: DistributionView, tolerance: float) -> float:
    """Return how far two scores of the same clips are apart."""
    again = _apart(view, _score(teacher, clips))
    require(again <= tolerance, f"scoring the same clips twice differs by {again:.4g}; switch dropout and sampling off")
    for clip, rows in ((c, clips.rows(c)) for c in range(len(clips.ids))):
        gap = _apart(view.at(rows), _score(teacher, clips.pick(clip)))
        require(gap <= tolerance, f"a clip scored alone and in a batch differs by {gap:.4g}; mask what is padded")
    return again


def _check_reading(teacher: Teacher, clips: _Clips, tolerance: float) -> None:
    """Row j is the distribution of token j given the audio and the tokens before j: change these, see which rows move.

    Moved is what moves by more than the rows that must stay.
    """
    ids, end = clips.ids[0], len(clips.ids[0])
    spots = [1, end // 2, end - 1]
    others = [next((i for i in clips.ids[2] if i != ids[spot]), clips.ids[1][0]) for spot in spots]
    texts = [ids, ids, *([*ids[:spot], other, *ids[spot + 1 :]] for spot, other in zip(spots, others)), ids]
    voices = [*[clips.waveforms[0]] * (len(texts) - 1), waveform(SAMPLES[0], len(SAMPLES))]
    changed = _Clips(voices, clips.languages[:1] * len(texts), texts)
    view = _score(teacher, changed)
    parts = [view.at(changed.rows(clip)) for clip in range(len(texts))]
    same, *moves, heard = (_gaps(parts[0], part) for part in parts[1:])
    kept = same + [gap for spot, gaps in zip(spots, moves) for gap in gaps[: spot + 1]]
    require(max(kept) <= tolerance, "row j depends on token j or later ones: it may read those before j only")
    noise = 3 * max(kept) + 1e-6
    for spot, gaps in zip(spots[:2], moves):
        require(gaps[spot + 1] > noise, "row j does not depend on token j - 1: it must read all tokens before j")
    far = f"rows {spots[0] + 3} to {end - 1} do not depend on token {spots[0]}: a row must read all tokens before it"
    require(max(moves[0][spots[0] + 3 :]) > noise, f"{far}, not the last ones only")
    require(max(heard) > noise, "no row depends on the audio: score under what is heard, not the text alone")


def _check_frozen(teacher: Teacher, clips: _Clips) -> None:
    for module in _modules(teacher):
        names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        require(not names, f"not frozen: {', '.join(names[:3])} require a gradient; call requires_grad_(False)")
    with torch.enable_grad():
        view = _score(teacher, clips)
        values = (view.topk(1)[1], view.logprobs_at(view.topk(1)[0]))
    require(not any(v.requires_grad for v in values), "scores carry a gradient; compute them under torch.no_grad()")


def _modules(teacher: Any) -> Iterator[nn.Module]:
    """Yield the modules that a teacher is or holds, in lists and mappings too."""
    values = [teacher, *getattr(teacher, "__dict__", {}).values()]
    values += [item for v in values if isinstance(v, dict) for item in v.values()]
    values += [item for v in values if isinstance(v, list | tuple) for item in v]
    return (value for value in values if isinstance(value, nn.Module))


def _check_texts(teacher: Teacher, clips: _Clips, twice: bool, alone: bool) -> None:
    """One text a clip, the same `twice` and `alone`, where the teacher is steady enough to be held to it."""
    texts = _transcribe(teacher, clips)
    again = _transcribe(teacher, clips) if twice else texts
    require(texts == again, f"transcribing twice gives other texts{_first(texts, again)}; decode greedily")
    single = [_transcribe(teacher, clips.pick(clip))[0] for clip in range(len(texts))] if alone else texts
    require(texts == single, f"a clip transcribed in a batch and alone differs{_first(texts, single)}")


def _transcribe(teacher: Teacher, clips: _Clips) -> list[str]:
    with attempt("check_teacher", "transcribe"):
        texts = teacher.transcribe([w.clone() for w in clips.waveforms], list(clips.languages))
    said = f"{described(texts)} of {[type(t).__name__ for t in texts]}" if isinstance(texts, list) else described(texts)
    good = isinstance(texts, list) and len(texts) == len(clips.ids) and all(isinstance(t, str) for t in texts)
    require(good, f"transcribe must return a list of {len(clips.ids)} texts, one a clip, not {said}")
    return texts


def _first(texts: list[str], others: list[str]) -> str:
    """Quote the first pair that differs."""
    return next((f" ({a[:40]!r} and {b[:40]!r})" for a, b in zip(texts, others) if a != b), "")


def _apart(one: DistributionView, other: DistributionView) -> float:
    """Return how far two views of the same rows are apart, at the best tokens of each."""
    return max(_gaps(one, other))


def _gaps(one: DistributionView, other: DistributionView) -> list[float]:
    """Return how far two views are apart in each row, at the best tokens of each."""
    sides = [(a.topk(TOP)[1], b.logprobs_at(a.topk(TOP)[0])) for a, b in ((one, other), (other, one))]
    return [max(distance(a[row], b[row]) for a, b in sides) for row in range(len(sides[0][0]))]
