"""Sets that are sorted on disk equal those that are sorted in memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from arkasr.corpora.layouts.entries import REPEATED, UNREADABLE, Entry
from arkasr.corpora.set_rows import Row, Scanned, SetRows, SubsetRows, count_subsets
from arkasr.data.blocks import order_hash
from arkasr.utils import disk_sort

LOW, HIGH = 1.0, 10.0


def scanned(count: int) -> list[Scanned]:
    """Return utterances of two parts, some with repeated ids, without audio, or of other lengths."""
    rng = random.Random(count)
    found = []
    for number in range(count):
        part, name = f"part{rng.randrange(2)}", f"clip{rng.randrange(count)}"
        seconds, listed = rng.uniform(0.5, 12.0), rng.random() > 0.1
        bad = not listed or rng.random() < 0.1
        entry = Entry(part, name, Path(f"{number}.wav"), reason=UNREADABLE if bad else "", speaker=f"s{number % 7}")
        row = None
        if not bad:
            row = Row(name, part, seconds, entry.speaker, "English", number % 3 > 0, "", 0.0, 0.0, f"line {number}")
        found.append(Scanned(number, entry, row, listed))
    return found


def reference_rows(utterances: list[Scanned]) -> tuple[list[Row], list[tuple[str, str]]]:
    """Return the rows by id, and part and reason of what is dropped, in the order of the corpus."""
    seen: set[str] = set()
    kept, early, late = [], [], []
    for _, entry, row, listed in utterances:
        if listed and entry.id in seen:
            early.append((entry.part, REPEATED))
        elif row is None:
            early.append((entry.part, entry.reason))
        elif LOW <= row.seconds <= HIGH:
            kept.append(row)
        else:
            late.append((entry.part, "shorter than 1 s" if row.seconds < LOW else "longer than 10 s"))
        if listed:
            seen.add(entry.id)
    dropped = [each for part in ("part0", "part1") for group in (early, late) for each in group if each[0] == part]
    return kept, dropped


@pytest.mark.parametrize("count", [0, 1, 40, 500])
@pytest.mark.parametrize("by_hash", [True, False])
def test_rows_and_dropped_utterances_equal_those_sorted_in_memory(tmp_path, monkeypatch, count, by_hash):
    monkeypatch.setattr(disk_sort, "RUN_RECORDS", 16)
    monkeypatch.setattr(disk_sort, "MOST_RUNS", 5)
    rows = SetRows(tmp_path, ["part0", "part1"], by_hash, LOW, HIGH)
    utterances = scanned(count)
    for each in utterances:
        rows.add(each)
    kept, dropped = reference_rows(utterances)
    key = (lambda row: order_hash(row.id)) if by_hash else (lambda row: row.id)
    assert list(rows) == list(rows) == sorted(kept, key=key)
    assert [(entry.part, entry.reason) for entry in rows.dropped()] == dropped
    totals = rows.totals
    assert totals.cuts == len(kept) and totals.seconds == pytest.approx(sum(row.seconds for row in kept))
    assert totals.untranscribed == sum(not row.has_text for row in kept)
    assert totals.speakers == {row.speaker for row in kept}
    assert sum(totals.dropped.values()) + totals.cuts == count
    assert sum(part.entries for part in totals.parts.values()) == count


def test_subsets_are_counted_in_one_pass_and_equal_ones_have_equal_ids(tmp_path):
    rows = SetRows(tmp_path, ["part0", "part1"], True, LOW, HIGH)
    for each in scanned(100):
        rows.add(each)
    subsets = [SubsetRows(rows, lambda row: row.has_text), SubsetRows(rows, lambda row: True)]
    count_subsets(rows, subsets)
    assert subsets[0].totals.cuts == sum(row.has_text for row in rows) < subsets[1].totals.cuts
    assert subsets[1].totals.ids.digest() == rows.totals.ids.digest() != subsets[0].totals.ids.digest()
    assert list(subsets[0].ids()) == [row.id for row in rows if row.has_text]
