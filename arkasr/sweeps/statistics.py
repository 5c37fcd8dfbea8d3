"""Numbers of a sweep's table: means, intervals, spreads over seeds and roundings, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from arkasr.scoring.significance import compare
from arkasr.scoring.tally import Tally, summary
from arkasr.sweeps.repetitions import Repetition, first_roundings

Tallies = Mapping[Repetition, Tally]


def rate(tally: Tally) -> float:
    """Return the error rate.

    Args:
        tally: Counts per utterance.

    Returns:
        Percent, NaN if all references are empty.
    """
    length = int(tally.lengths.sum())
    return 100 * int(tally.errors.sum()) / length if length else math.nan


def added(tallies: Iterable[Tally]) -> Tally:
    """Add the counts of several trainings per utterance. Their error rate is the mean of the error rates.

    Args:
        tallies: Counts for the same utterances in the same order.

    Returns:
        The sums.
    """
    columns = ((each.hits, each.substitutions, each.deletions, each.insertions) for each in tallies)
    return Tally(*(np.sum(column, axis=0) for column in zip(*columns, strict=True)))


def spread(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation.

    Args:
        values: Any numbers.

    Returns:
        It, or None of fewer than two values.
    """
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _by_seed(values: Mapping[Repetition, float]) -> dict[int, list[float]]:
    """Return the values of each seed, by rounding in ascending order."""
    found: dict[int, list[float]] = {}
    for repetition in sorted(values, key=lambda each: (each.seed, each.rounding)):
        found.setdefault(repetition.seed, []).append(values[repetition])
    return found


def spread_over_roundings(values: Mapping[Repetition, float]) -> float | None:
    """Return the standard deviation over roundings of the same seed, pooled over seeds.

    Args:
        values: One value per repetition.

    Returns:
        Square root of the mean variance, weighted by degrees of freedom. None if no seed has two roundings.
    """
    groups = [np.asarray(each) for each in _by_seed(values).values() if len(each) > 1]
    if not groups:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    return math.sqrt(squares / sum(len(group) - 1 for group in groups))


def measured(tallies: Tallies, speakers: Sequence[str]) -> dict[str, Any]:
    """Summarise one row on one test set.

    Args:
        tallies: Counts by repetition.
        speakers: Speaker per utterance.

    Returns:
        Of the first rounding of each seed: `seeds` (number), `rate_percent` (mean), its 95 % intervals over utterances
        and speakers, the spread `sd_seeds`, and `lowest` and `highest`. Of all: `trainings` (number) and
        `sd_roundings`. Empty without repetitions.
    """
    if not tallies:
        return {}
    rates, first = {each: rate(one) for each, one in tallies.items()}, first_roundings(tallies)
    total, of_seeds = summary(added(first.values()), speakers), [rates[each] for each in first]
    return {
        "trainings": len(tallies),
        "seeds": len(first),
        **{key: total[key] for key in ("rate_percent", "interval_percent", "interval_by_speaker_percent")},
        "sd_seeds": spread(of_seeds),
        "sd_roundings": spread_over_roundings(rates),
        "lowest": min(of_seeds),
        "highest": max(of_seeds),
    }


def pairs(tallies: Tallies, control: Tallies) -> dict[Repetition, tuple[Tally, Tally]]:
    """Pair trainings with those of a control.

    Args:
        tallies: Counts by repetition. A run that is trained once is paired with each seed of the control.
        control: Those of the control. A shared run has one training per seed, which is used for all roundings. A run
            that is trained once has one, which is used for all seeds and roundings.

    Returns:
        Both counts by repetition, for repetitions that both have.
    """
    if single := _only(tallies):
        return {each: (single, other) for each, other in first_roundings(control).items()}
    found = {}
    for repetition, tally in tallies.items():
        other = control.get(repetition) or control.get(Repetition(repetition.seed)) or _only(control)
        if other is not None:
            found[repetition] = tally, other
    return found


def _only(tallies: Tallies) -> Tally | None:
    """Return the counts of a run that is trained once, None for other runs."""
    return next((tally for repetition, tally in tallies.items() if repetition.is_once), None)


def difference(tallies: Tallies, control: Tallies, speakers: Sequence[str]) -> dict[str, Any]:
    """Compare a row with a control, seed by seed.

    Args:
        tallies: Counts by repetition.
        control: Those of the control.
        speakers: Speaker per utterance.

    Returns:
        Of the first rounding of each seed: the entries of `arkasr.scoring.significance.compare` of the counts added
        over seeds, `seeds` (number of pairs), `sd_seeds` of the differences, their interval and p value over seeds by
        Student's t (`interval_seeds_percent`, `p_seeds`, None with fewer than two seeds), and `seeds_better`: the
        number of seeds in which the row has the lower error rate. Of all: `sd_roundings`. Empty without pairs.
    """
    both = pairs(tallies, control)
    if not both:
        return {}
    first = first_roundings(both)
    ours, theirs = (added(pair[side] for pair in first.values()) for side in (0, 1))
    changes = {each: rate(one) - rate(other) for each, (one, other) in both.items()}
    of_seeds = [changes[each] for each in first]
    interval, p_value = student_t(of_seeds)
    return {
        **compare(ours, theirs, speakers),
        "seeds": len(first),
        "sd_seeds": spread(of_seeds),
        "interval_seeds_percent": interval,
        "p_seeds": p_value,
        "seeds_better": sum(value < 0 for value in of_seeds),
        "sd_roundings": spread_over_roundings(changes),
    }


def student_t(values: Sequence[float]) -> tuple[list[float] | None, float | None]:
    """Compute Student's interval and test of a mean.

    Args:
        values: Differences, one per seed.

    Returns:
        The 95 % interval of the mean and the two-sided p value of a mean of 0. None with fewer than two values, and the
        p value also if all are equal.
    """
    from scipy.special import stdtr, stdtrit

    if len(values) < 2:
        return None, None
    degrees, mean = len(values) - 1, float(np.mean(values))
    error = (spread(values) or 0.0) / math.sqrt(len(values))
    width = float(stdtrit(degrees, 0.975)) * error
    p_value = 2 * float(stdtr(degrees, -abs(mean) / error)) if error else None
    return [mean - width, mean + width], p_value
