"""Ranks of hashes in a file."""

from __future__ import annotations

import hashlib
import io

import pytest

from arkasr.corpora import splits


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_nth_equals_sorting(monkeypatch, count):
    monkeypatch.setattr(splits, "_CHUNK", 64)
    hashes = [hashlib.sha256(str(number).encode()).digest() for number in range(count)]
    ordered, file = sorted(hashes), io.BytesIO(b"".join(hashes))
    for number in {0, count // 3, count // 2, count - 1}:
        assert splits.nth(file, number) == ordered[number]


def test_nth_distinguishes_hashes_with_equal_first_bytes():
    hashes = [bytes([1, 2]) + bytes([number]) * 30 for number in (5, 3, 4)] + [bytes(32), b"\xff" * 32]
    file = io.BytesIO(b"".join(hashes))
    assert [splits.nth(file, number) for number in range(5)] == sorted(hashes)
