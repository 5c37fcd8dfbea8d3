"""Dealing in loader processes: the same batches as in one process, errors as one sentence, reports once."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import gzip
import json
import re
from itertools import islice

import pytest
from lhotse import CutSet, SupervisionSegment
from shard_files import counted, settings, shards, silent_cut  # noqa: F401

from arkasr.data import clips, dealing, loading
from arkasr.data.batches import Batch
from arkasr.data.dealing import Dealer, Deals
from arkasr.data.order import START
from arkasr.data.sampling import TrainingBatches
from arkasr.errors import UserError

NUM = 500


def manifest_cuts() -> list:
    """Return clips of 1 to 6 s, every fourth of them as one of three supervisions of a cut."""
    cuts = [silent_cut(f"clip-{i:04d}", 1.0 + (7 * i) % 50 / 10, "word " * (i % 9 + 1)) for i in range(NUM)]
    for cut in cuts[::4]:
        third = cut.duration / 3
        cut.supervisions = [
            SupervisionSegment(f"{cut.id}.{i}", cut.id, i * third, third, text=f"part {i}", language="English")
            for i in range(3)
        ]
    return cuts


@pytest.fixture(params=["never", "text", "one member", "many members"])
def config(request, tmp_path, monkeypatch):
    """Return settings for the same clips, read in several ways. Files are larger than what is read ahead."""
    monkeypatch.setattr(loading, "load_batch", lambda cuts, speeds: Batch([cut.id for cut in cuts], [], [], []))
    path = tmp_path / ("train.jsonl.gz" if "member" in request.param else "train.jsonl")
    if request.param == "many members":
        lines = [f"{json.dumps(cut.to_dict())}\n".encode() for cut in manifest_cuts()]
        path.write_bytes(b"".join(gzip.compress(b"".join(lines[i : i + 150])) for i in range(0, NUM, 150)))
    else:
        CutSet.from_cuts(manifest_cuts()).to_file(path)
    lazy = "never" if request.param == "never" else "always"
    return settings(path, lazy=lazy, buffer_clips=50, max_seconds=40.0, max_cuts=10)


def drawn(config, state: dict | None, number: int, rank: int = 1, world_size: int = 2) -> list:
    """Return ids and state of the next batches."""
    batches = TrainingBatches(config, 1, rank, world_size)
    if state:
        batches.load_state_dict(state)
    return [(batch.ids, batches.state_dict()) for batch in islice(batches, number)]


@pytest.mark.slow
def test_batches_and_positions_do_not_depend_on_loader_processes(config):
    alone = drawn(config, None, 90)
    assert alone[-1][1]["epoch"] >= 2 and len({tuple(state["read"]) for _, state in alone}) > 10
    for workers in (1, 2, 3):
        config.num_workers = workers
        assert drawn(config, None, 90) == alone


@pytest.mark.slow
@pytest.mark.parametrize("resume", ["exact", "reseed"])
def test_loader_processes_continue_after_the_batches_drawn_before_the_fork(config, resume):
    config.resume = resume
    for number in (1, 7, 20):
        state = drawn(config, None, number)[-1][1]
        config.num_workers = 0
        alone = drawn(config, state, 40, 2, 3)
        config.num_workers = 2
        assert drawn(config, state, 40, 2, 3) == alone


def test_deals_continue_in_every_process_where_they_were_paused(config):
    dealer = Dealer(config, 1, 0, 2)
    whole = list(islice(Deals(dealer, 0, START, []), 30))
    for count in range(0, 20, 3):
        rest = Deals(dealer, 0, START, [(2, count)])
        found = list(islice(rest, 10))
        assert [[clip.cut().id for clip in one.clips] for one in found] == [
            [clip.cut().id for clip in one.clips] for one in whole[count : count + 10]
        ]
        assert [one.read for one in found] == [one.read for one in whole[count : count + 10]]


@pytest.mark.parametrize("lazy", ["never", "always"])
def test_dealing_makes_only_the_cuts_of_own_batches(shards, lazy, monkeypatch):
    class Watched(list):
        def __getitem__(self, index):
            made.append(index)
            return super().__getitem__(index)

    dealer, made = Dealer(settings(shards, lazy=lazy), 1, 1, 4), []
    if lazy == "never":
        dealer.manifest.cuts = Watched(dealer.manifest.cuts)
    make = clips.deserialize_item
    monkeypatch.setattr(clips, "deserialize_item", lambda item: made.append(item["id"]) or make(item))
    dealt = list(islice(Deals(dealer, 0, START, [(4, 2)]), 3))
    assert not made
    names = [clip.cut().id for one in dealt for clip in one.clips]
    assert len(made) == len(names) > 0


@pytest.mark.slow
def test_loader_processes_report_on_the_manifest_once(shards, capfd):
    batches = TrainingBatches(settings(shards, max_clip_seconds=8.5, max_seconds=6.0, num_workers=3), 1)
    for _ in batches:
        if batches.epoch == 2:
            break
    printed = capfd.readouterr().out
    left_out = re.findall(r"\d+ of \d+ cuts left out, because they do not last", printed)
    assert len(left_out) == 1, printed
    assert printed.count("above data.max_seconds=6; it forms its own batch") == 1


def broken(shards, line: bytes):
    """Write a line into the shard that comes last in the first epoch."""
    last = Dealer(settings(shards), 1, 0, 1).stream(0).order[-1]
    shard = shards / f"train.{last:03d}.jsonl.gz"
    lines = gzip.decompress(shard.read_bytes()).splitlines()
    shard.write_bytes(gzip.compress(b"\n".join([*lines[:4], line, *lines[5:]])))


ODD = json.dumps(silent_cut("odd", 2.0).to_dict() | {"unknown": 1}).encode()  # Lhotse cannot make a cut of it


@pytest.mark.slow
@pytest.mark.parametrize(("line", "message"), [(b"[]", "is not a cut: list instead"), (ODD, "is not a cut: TypeError")])
def test_broken_line_is_the_same_sentence_from_loader_processes(shards, monkeypatch, line, message):
    monkeypatch.setattr(dealing, "NUM_CLIPS_FOR_BINS", 20)  # these clips are read before the first batch
    broken(shards, line)
    errors = []
    for workers in (0, 3):
        batches = TrainingBatches(settings(shards, num_workers=workers), 1, timeout=60.0)
        with pytest.raises(UserError, match=f": line 5 {message}") as raised:
            for batch in batches:
                assert batch.ids and batches.epoch == 0
        errors.append((str(raised.value), batches.consumed))
    assert errors[0] == errors[1]
    assert errors[0][1] > 5 and "\n" not in errors[0][0]
