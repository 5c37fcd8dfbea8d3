"""Check that an object conforms to `arkasr.Teacher` and returns conforming `arkasr.DistributionView` objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from arkasr.interfaces import DistributionView, Teacher
from arkasr.testing.require import attempt, describe, distance, requirer
from arkasr.testing.tiny import waveform
from arkasr.testing.views import TOP, check_view

require = requirer("check_teacher")
SAMPLES = (17600, 1600, 9000, 12000)  # 1.1 s to 0.1 s, the shortest clip that training keeps
STEADY = 1e-3  # nats: up to this difference between two computations, greedy transcripts must be equal
LONG, SHORT = "the quick brown fox jumps over the lazy dog", "one two three"


@dataclass
class _Clips:
    """The arguments of `Teacher.score` for B clips."""

    waveforms: list[Tensor]
    languages: list[str]
    ids: list[list[int]]

    def pick(self, clip: int) -> _Clips:
        return _Clips([self.waveforms[clip]], [self.languages[clip]], [self.ids[clip]])

    def rows(self, clip: int) -> Tensor:
        ends = list(accumulate(map(len, self.ids), initial=0))
        return torch.arange(ends[clip], ends[clip + 1])


def check_teacher(teacher: Teacher, language: str = "English", tolerance: float = 1e-4, scores: bool = True) -> None:
    """Check that a teacher conforms to `arkasr.Teacher`.

    The teacher scores and transcribes four clips of 0.1 to 1.1 s. Two transcripts end with a stop token, one is cut
    and one is only a stop token. The check covers:

    - The view has the right shapes, dtypes and device. Probabilities sum to at most 1, and to 1 if all are known.
      `topk`, `logprobs_at`, `at` and `entropy` agree.
    - `score` is deterministic, and returns the same for one clip and for a batch that contains it. Row j depends on
      the audio and on all tokens before j, and on no other token. No parameter and no value requires a gradient.
    - `transcribe` returns one str per clip. Two calls return the same texts, unless two scores differ by more than
      0.001 nats. One clip and a batch that contains it yield the same text, unless `tolerance` is above 0.001 nats,
      since rounding may change a greedy choice.

    Args:
        teacher: The teacher.
        language: Language of the clips, any that the teacher knows.
        tolerance: Allowed difference between log-probabilities from two computations of the same value, in nats. A
            teacher in bfloat16 needs more than the default.
        scores: Set it to False for a teacher that only transcribes, for `arkasr label`. `score` is then not called.

    Raises:
        AssertionError: The first promise that the teacher breaks.
    """
    members = "tokenizer, stop_ids, score, transcribe"
    require(isinstance(teacher, Teacher), f"{describe(teacher)} lacks at least one of {members}")
    if not scores:
        waveforms = [waveform(n, seed) for seed, n in enumerate(SAMPLES)]
        clips = _Clips(waveforms, [language] * len(SAMPLES), [[] for _ in SAMPLES])
        _check_texts(teacher, clips, twice=True, alone=tolerance <= STEADY)
        return
    clips = _clips(teacher, language)
    view = _score(teacher, clips)
    check_view("check_teacher", view, sum(map(len, clips.ids)), tolerance)
    repeated = _check_repeatable(teacher, clips, view, tolerance)
    _check_context(teacher, clips, tolerance)
    _check_frozen(teacher, clips)
    _check_texts(teacher, clips, twice=repeated <= STEADY, alone=tolerance <= STEADY)


def _clips(teacher: Teacher, language: str) -> _Clips:
    stops = list(teacher.stop_ids)
    good = stops and all(isinstance(i, int) and i >= 0 for i in stops)
    require(good, f"stop_ids is {stops}; it must have at least one id, an int of 0 or more")
    long, short = (teacher.tokenizer.encode(text, add_special_tokens=False) for text in (LONG, SHORT))
    long = (long * 8)[:8]  # 8 tokens even if the tokenizer has one token for the whole text
    ids = [[*long, stops[0]], [stops[0]], short, [*short, stops[0]]]
    return _Clips([waveform(n, seed) for seed, n in enumerate(SAMPLES)], [language] * len(ids), ids)


def _score(teacher: Teacher, clips: _Clips) -> DistributionView:
    """Score clips and check that the teacher does not change its arguments."""
    waveforms, ids = [w.clone() for w in clips.waveforms], [list(i) for i in clips.ids]
    with attempt("check_teacher", f"score for {len(ids)} clips"):
        view = teacher.score(waveforms, list(clips.languages), ids)
    unchanged = ids == clips.ids and all(map(torch.equal, waveforms, clips.waveforms))
    require(unchanged, "score changes the waveforms or token ids that it receives; it must leave them unchanged")
    return view


def _check_repeatable(teacher: Teacher, clips: _Clips, view: DistributionView, tolerance: float) -> float:
    """Return the largest difference between two scores of the same clips, in nats."""
    repeated = _largest_gap(view, _score(teacher, clips))
    twice = f"two scores of the same clips differ by {repeated:.4g} nats"
    require(repeated <= tolerance, f"{twice}; score must be deterministic (switch off dropout and sampling)")
    for clip in range(len(clips.ids)):
        gap = _largest_gap(view.at(clips.rows(clip)), _score(teacher, clips.pick(clip)))
        alone = f"the scores of a clip alone and in a batch differ by {gap:.4g} nats"
        require(gap <= tolerance, f"{alone}; they must be the same (mask the padding)")
    return repeated


def _check_context(teacher: Teacher, clips: _Clips, tolerance: float) -> None:
    """Check that row j depends on the audio and all tokens before j, and on no other token.

    The audio and single tokens are changed. A row counts as changed if it differs by more than the rows that must not.
    """
    ids, end = clips.ids[0], len(clips.ids[0])
    spots = [1, end // 2, end - 1]
    others = [next((i for i in clips.ids[2] if i != ids[spot]), clips.ids[1][0]) for spot in spots]
    texts = [ids, ids, *([*ids[:spot], other, *ids[spot + 1 :]] for spot, other in zip(spots, others)), ids]
    waveforms = [*[clips.waveforms[0]] * (len(texts) - 1), waveform(SAMPLES[0], len(SAMPLES))]
    changed = _Clips(waveforms, clips.languages[:1] * len(texts), texts)
    view = _score(teacher, changed)
    parts = [view.at(changed.rows(clip)) for clip in range(len(texts))]
    same_text, *changed_token, changed_audio = (_gaps(parts[0], part) for part in parts[1:])
    fixed = same_text + [gap for spot, gaps in zip(spots, changed_token) for gap in gaps[: spot + 1]]
    allowed = "it must depend only on the audio and the tokens before j"
    require(max(fixed) <= tolerance, f"row j depends on token j or later tokens; {allowed}")
    noise = 3 * max(fixed) + 1e-6
    for spot, gaps in zip(spots[:2], changed_token):
        require(gaps[spot + 1] > noise, "row j does not depend on token j - 1; it must depend on all tokens before j")
    first = spots[0]
    late = f"rows {first + 3} to {end - 1} do not depend on token {first}"
    rule = "each row must depend on all tokens before it, not only on the most recent ones"
    require(max(changed_token[0][first + 3 :]) > noise, f"{late}; {rule}")
    require(max(changed_audio) > noise, "the scores do not depend on the waveforms; they must depend on the audio")


def _check_frozen(teacher: Teacher, clips: _Clips) -> None:
    for module in _modules(teacher):
        names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        trainable = f"parameters {', '.join(names[:3])} require a gradient"
        require(not names, f"{trainable}; the teacher must be frozen (call requires_grad_(False))")
    with torch.enable_grad():
        view = _score(teacher, clips)
        values = (view.topk(1)[1], view.logprobs_at(view.topk(1)[0]))
    rule = "compute them under torch.no_grad()"
    require(not any(v.requires_grad for v in values), f"the scores require a gradient; {rule}")


def _modules(teacher: Any) -> Iterator[nn.Module]:
    """Yield the modules among a teacher and its attributes, including those in lists and dicts."""
    values = [teacher, *getattr(teacher, "__dict__", {}).values()]
    values += [item for v in values if isinstance(v, dict) for item in v.values()]
    values += [item for v in values if isinstance(v, list | tuple) for item in v]
    return (value for value in values if isinstance(value, nn.Module))


def _check_texts(teacher: Teacher, clips: _Clips, twice: bool, alone: bool) -> None:
    """Check the texts, and whether they are the same `twice` and for a clip `alone`."""
    texts = _transcribe(teacher, clips)
    again = _transcribe(teacher, clips) if twice else texts
    repeated = f"transcribe returns different texts for the same clips{_first_difference(texts, again)}"
    require(texts == again, f"{repeated}; it must decode greedily")
    single = [_transcribe(teacher, clips.pick(clip))[0] for clip in range(len(texts))] if alone else texts
    batched = f"transcribe returns different texts for a clip in a batch and alone{_first_difference(texts, single)}"
    require(texts == single, f"{batched}; they must be the same (mask the padding)")


def _transcribe(teacher: Teacher, clips: _Clips) -> list[str]:
    with attempt("check_teacher", "transcribe"):
        texts = teacher.transcribe([w.clone() for w in clips.waveforms], list(clips.languages))
    is_list = isinstance(texts, list)
    found = f"a list of types {[type(t).__name__ for t in texts]}" if is_list else describe(texts)
    good = is_list and len(texts) == len(clips.ids) and all(isinstance(t, str) for t in texts)
    require(good, f"transcribe returns {found}; it must return a list of {len(clips.ids)} str, one per clip")
    ends = [(getattr(t, "stopped", None), getattr(t, "looping", None)) for t in texts]
    known = all(value is None or isinstance(value, bool) for end in ends for value in end)
    require(known, f"transcripts report (stopped, looping) as {ends}; each must be True, False or None")
    return texts


def _first_difference(texts: list[str], others: list[str]) -> str:
    """Return the first pair of texts that differ, for a message."""
    return next((f" ({a[:40]!r} and {b[:40]!r})" for a, b in zip(texts, others) if a != b), "")


def _largest_gap(one: DistributionView, other: DistributionView) -> float:
    """Return the largest difference of two views of the same rows at the best tokens of each."""
    return max(_gaps(one, other))


def _gaps(one: DistributionView, other: DistributionView) -> list[float]:
    """Return the largest difference of two views in each row, at the best tokens of each."""
    sides = [(a.topk(TOP)[1], b.logprobs_at(a.topk(TOP)[0])) for a, b in ((one, other), (other, one))]
    return [max(distance(a[row], b[row]) for a, b in sides) for row in range(len(sides[0][0]))]
