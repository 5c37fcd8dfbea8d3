"""Sorting on disk gives what sorting in memory gives."""

from __future__ import annotations

import random

import pytest

from arkasr.utils import disk_sort
from arkasr.utils.disk_sort import DiskSort


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 95, 1000])
def test_disk_sort_equals_a_stable_sort_in_memory(tmp_path, monkeypatch, count):
    monkeypatch.setattr(disk_sort, "RUN_RECORDS", 10)
    monkeypatch.setattr(disk_sort, "MOST_RUNS", 4)
    rng = random.Random(count)
    records = [(f"{rng.randrange(count):04d}", number) for number in range(count)]
    ordered = DiskSort(tmp_path)
    for record in records:
        ordered.add(record[0], record)
    expected = sorted(records, key=lambda record: record[0])
    assert list(ordered) == expected and list(ordered) == expected and len(ordered) == count
    ordered.close()
    assert list(tmp_path.iterdir()) == []


def test_disk_sort_holds_few_records_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_sort, "RUN_RECORDS", 50)
    ordered = DiskSort(tmp_path)
    for number in range(1020):
        ordered.add(-number, number)
    assert len(ordered._new) == 20 and len(ordered._runs) == 20


def test_records_can_be_added_after_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_sort, "RUN_RECORDS", 3)
    ordered = DiskSort(tmp_path)
    for number in (5, 1, 4, 2):
        ordered.add(number, number)
    assert list(ordered) == [1, 2, 4, 5]
    for number in (3, 0, 6):
        ordered.add(number, number)
    assert list(ordered) == [0, 1, 2, 3, 4, 5, 6]
