"""Blocks of manifest files: their lines together are those of the file, whatever its compression."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import zlib

import pytest
from lhotse import CutSet, MonoCut
from shard_files import silent_cut

from arkasr.data.blocks import BLOCK_LINES, FileBlocks, order_hash, write_cuts
from arkasr.data.lines import entries
from arkasr.data.manifests import read_cuts
from arkasr.errors import UserError


def cuts(number: int) -> list[MonoCut]:
    return [silent_cut(f"clip-{i:04d}", 1.0, "字é") for i in range(number)]


def lines(number: int) -> list[bytes]:
    return [json.dumps(cut.to_dict()).encode() + b"\n" for cut in cuts(number)]


def compressed(*parts: list[bytes]) -> bytes:
    return b"".join(gzip.compress(b"".join(part)) for part in parts)


def read_back(path, order=None) -> list[tuple[int, str]]:
    blocks = FileBlocks([path])
    found = {i: [(n, item["id"]) for n, item in entries(path, 0, blocks[i][1])] for i in order or range(len(blocks))}
    return [pair for number in sorted(found) for pair in found[number]]


def expected(number: int) -> list[tuple[int, str]]:
    return [(i, f"clip-{i:04d}") for i in range(number)]


@pytest.mark.parametrize("number", [0, 1, BLOCK_LINES - 1, BLOCK_LINES, BLOCK_LINES + 1, 5 * BLOCK_LINES + 7])
def test_blocks_of_text_and_of_written_files_hold_every_line_once(tmp_path, number):
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines(number)) + b"\n")
    write_cuts(tmp_path / "b.jsonl.gz", cuts(number))
    for name in ("a.jsonl", "b.jsonl.gz"):
        blocks = FileBlocks([tmp_path / name])
        assert len(blocks) in {max(1, -(-number // BLOCK_LINES)), -(-(number + 1) // BLOCK_LINES)}
        assert max([b.lines or 0 for _, b in blocks]) <= BLOCK_LINES
        order = list(range(len(blocks)))
        random.Random(1).shuffle(order)
        assert read_back(tmp_path / name, order) == expected(number)


def test_block_begins_at_any_line(tmp_path):
    write_cuts(tmp_path / "a.jsonl.gz", cuts(200))
    _, block = FileBlocks([tmp_path / "a.jsonl.gz"])[1]
    found = [number for number, _ in entries(tmp_path / "a.jsonl.gz", BLOCK_LINES + 60, block)]
    assert found == list(range(BLOCK_LINES + 60, 2 * BLOCK_LINES))


@pytest.mark.parametrize("name", ["one.jsonl.gz", "renamed.jsonl"])
def test_gzip_members_of_other_programs(tmp_path, name):
    rows, path = lines(10), tmp_path / name
    whole = b"".join(rows)
    for data, blocks in (
        (compressed(rows), 1),  # one member
        (compressed(rows[:3], rows[3:4], [], rows[4:]), 4),  # files that were joined, one of them empty
        (gzip.compress(whole[:1000]) + gzip.compress(whole[1000:]), 1),  # a member that begins inside one line
        (compressed(rows[:5], rows[5:]) + b"\0" * 512, 2),  # padded, as on tapes
        (compressed([b"".join(rows)[:-1]]), 1),  # no line end at the end
    ):
        path.write_bytes(data)
        assert read_back(path) == expected(10) and len(FileBlocks([path])) == blocks
        assert FileBlocks([path]).longer_than(4) == path
        assert FileBlocks([path]).longer_than(10) is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-20], "truncated"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:-6] + b"abcdef", "damaged"),
        (lambda data: data + b"rest", "damaged"),
    ],
)
def test_damaged_files_are_indexed_and_reading_names_the_damage(tmp_path, damage, message):
    path = tmp_path / "a.jsonl.gz"
    write_cuts(path, cuts(200))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"a.jsonl.gz: .*{message}"):
        read_back(path)


def test_written_manifests_are_ordinary_ones_with_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_cuts(tmp_path / f"{name}.jsonl.gz", cuts(150))
    CutSet.from_cuts(cuts(150)).to_file(tmp_path / "c.jsonl.gz")
    texts = [gzip.decompress((tmp_path / f"{name}.jsonl.gz").read_bytes()) for name in "abc"]
    assert texts[0] == texts[1] == texts[2]
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert list(CutSet.from_file(tmp_path / "a.jsonl.gz")) == list(read_cuts(str(tmp_path / "a.jsonl.gz"))) == cuts(150)
    inflate = zlib.decompressobj(31)  # other readers see complete members
    inflate.decompress((tmp_path / "a.jsonl.gz").read_bytes())
    assert inflate.eof and inflate.unused_data


def test_blocks_of_several_files_follow_each_other(tmp_path):
    for name, number in (("a", 70), ("b", 1), ("c", 130)):
        write_cuts(tmp_path / f"{name}.jsonl.gz", cuts(number))
    blocks = FileBlocks([tmp_path / f"{name}.jsonl.gz" for name in "abc"])
    found = [(file.name[0], block.first, block.lines) for file, block in blocks]
    assert found == [("a", 0, 64), ("a", 64, None), ("b", 0, None), ("c", 0, 64), ("c", 64, 64), ("c", 128, None)]
    with pytest.raises(IndexError):
        blocks[6]


def test_hash_order_depends_on_ids_only():
    shuffled = cuts(300)
    random.Random(5).shuffle(shuffled)
    ordered = sorted((cut.id for cut in cuts(300)), key=order_hash)
    assert ordered == sorted((cut.id for cut in shuffled), key=order_hash) and sorted(ordered) == [
        c.id for c in cuts(300)
    ]
    assert ordered == sorted(ordered, key=lambda name: hashlib.sha256(f"order {name}".encode()).digest())
    assert ordered != sorted(ordered)
