"""Mixes: shares of hours, rotation, repetition, resuming, and mix files that are refused."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from corpus_fixture import metrics
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet
from safetensors.torch import load_file
from shard_files import epoch, settings, silent_cut
from training_runs import train_until

from arkasr.data import loading
from arkasr.data.batches import Batch
from arkasr.data.blocks import write_cuts
from arkasr.data.bucketing import spread
from arkasr.data.lazy_cut import LazyCut
from arkasr.data.manifests import digest, read_cuts, shards
from arkasr.data.mix import Member, leaves, read_mix, write_mix
from arkasr.data.mixing import MixedManifest, rates, rotation, turn
from arkasr.data.sampling import TrainingBatches
from arkasr.data.training_cuts import InMemory, OnDisk, open_manifest
from arkasr.errors import UserError
from arkasr.training.train import train

SIZES = {"english": 240, "chinese": 90, "german": 30}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with three corpora in two languages and two lengths, whose ids are equal in all of them."""
    monkeypatch.setattr(loading, "load_batch", lambda cuts, speeds: Batch([cut.id for cut in cuts], [], [], []))
    for name, size in SIZES.items():
        (tmp_path / name).mkdir()
        cuts = [_without_language(silent_cut(f"clip-{i:04d}", 1.0 + i % 5 * (2 if name == "chinese" else 1))) for i in
                range(size)]  # fmt: skip
        write_cuts(tmp_path / name / "base.jsonl.gz", cuts)
        (tmp_path / name / "corpus.json").write_text(json.dumps({"language": name.title()}))
    return tmp_path


def _without_language(cut):
    cut.supervisions[0].language = None
    return cut


def mix(folder: Path, **weights: float | None) -> Path:
    names = weights or dict.fromkeys(SIZES)
    path = folder / "mixed" / "base.mix.yaml"
    write_mix(path, [Member(f"../{name}/base.jsonl.gz", name, weight) for name, weight in names.items()])
    return path


def drawn(path: Path, numbers=(0,), seed: int = 1, **changes) -> list[list[str]]:
    """Return the ids of some epochs, in the order of the stream."""
    manifest = open_manifest(settings(path, **changes))
    return [list(ids(*manifest.epoch(seed, number))) for number in numbers]


def ids(manifest, order):
    for shard in order:
        for _, clip in manifest.read(shard, 0):
            yield clip.cut().id


def member(name: str) -> str:
    return name.partition("/")[0]


def shares(path: Path, names: list[str]) -> dict[str, float]:
    seconds = {cut.id: cut.duration for cut in read_cuts(str(path))}
    hours = Counter()
    for name in names:
        hours[member(name)] += seconds[name.partition("_rep")[0]]
    return {name: hours[name] / hours.total() for name in hours}


@pytest.mark.parametrize("lazy", ["always", "never"])
def test_mix_without_weights_reads_every_clip_once_in_its_own_language(folder, lazy):
    path = mix(folder)
    (names,) = drawn(path, lazy=lazy)
    assert sorted(names) == sorted(f"{name}/clip-{i:04d}" for name, size in SIZES.items() for i in range(size))
    languages = {member(cut.id): cut.supervisions[0].language for cut in read_cuts(str(path))}
    assert languages == {name: name.title() for name in SIZES}
    if lazy == "never":
        assert {member(name) for name in names[:40]} == set(SIZES)  # not one member after the other


@pytest.mark.parametrize("lazy", ["always", "never"])
@pytest.mark.parametrize("weights", [(0.2, 0.3, 0.5), (5.0, 1.0, 1.0), (1.0, 1.0, 1.0)])
def test_epoch_has_the_shares_of_the_weights_in_each_of_its_quarters(folder, lazy, weights):
    path = mix(folder, **dict(zip(SIZES, weights)))
    total = sum(cut.duration for cut in read_cuts(str(path)))
    manifest = open_manifest(settings(path, lazy=lazy))
    assert manifest.seconds() == pytest.approx(total, rel=1e-4)
    for number in range(3):
        names = list(ids(*manifest.epoch(1, number)))
        assert len(set(names)) == len(names)
        found = shares(path, names)
        for name, weight in zip(SIZES, weights):
            assert found[name] == pytest.approx(weight / sum(weights), abs=0.05)
        if lazy == "never":  # a block of lines is read together, so small corpora on disk come in lumps
            for place in range(4):
                quarter = shares(path, names[place * len(names) // 4 : (place + 1) * len(names) // 4])
                assert all(abs(quarter[name] - found[name]) < 0.13 for name in SIZES)


def test_shares_equal_those_of_lhotse_mux(folder):
    weights = {"english": 0.2, "chinese": 0.5, "german": 0.3}
    path = mix(folder, **weights)
    ours = Counter()
    for names in drawn(path, range(5), lazy="never"):
        for name, share in shares(path, names).items():
            ours[name] += share / 5
    cuts = {name: list(read_cuts(str(folder / name / "base.jsonl.gz"))) for name in weights}
    means = {name: sum(cut.duration for cut in each) / len(each) for name, each in cuts.items()}
    named = [CutSet.from_cuts(cut.with_id(f"{name}/{cut.id}") for cut in cuts[name]).repeat() for name in weights]
    mux = CutSet.mux(*named, weights=[weights[name] / means[name] for name in weights], seed=3)  # by clips, not hours
    theirs = shares(path, [cut.id.partition("_repeat")[0] for cut in islice(mux, 4000)])
    assert all(abs(ours[name] - theirs[name]) < 0.03 for name in weights)


def test_rotation_reads_all_clips_of_a_member_in_few_epochs(folder):
    path = mix(folder, english=1.0, chinese=1.0, german=1.0)
    manifest = open_manifest(settings(path, lazy="never"))
    rate = next(part.rate for part in manifest.parts if part.rate < 1)
    counts = Counter()
    for names in drawn(path, range(12)):
        counts.update(name for name in names if member(name) == "english")
    assert len(counts) == SIZES["english"] and 0.3 < rate < 0.9
    assert {int(12 * rate), int(12 * rate) + 1} >= set(counts.values())


@given(st.floats(0.001, 0.999), st.integers(0, 10**6), st.lists(st.text(max_size=9), min_size=1, max_size=20))
def test_rotation_is_even_over_any_successive_epochs(fraction, start, names):
    for name in names:
        count = 0
        for number in range(1, 40):
            count += rotation(fraction, start + number)(turn(name))
            assert int(fraction * number) - 1e-9 <= count <= fraction * number + 1 + 1e-9


def test_repeated_clips_get_ids_and_passes_of_their_own(folder):
    path = mix(folder, english=1.0, german=6.0)
    (names,) = drawn(path, lazy="never")
    (part,) = [part for part in open_manifest(settings(path, lazy="never")).parts if part.rate > 1]
    places = {}
    for place, name in enumerate(names):
        if member(name) == "german":
            clip, _, repeat = name.partition("_rep")
            places.setdefault(clip, []).append((int(repeat or 0), place))
    assert len(places) == SIZES["german"]
    assert {len(found) for found in places.values()} <= {int(part.rate), int(part.rate) + 1}
    for found in places.values():
        assert [repeat for repeat, _ in found] == list(range(len(found)))  # the passes follow each other
    copies = spread([[LazyCut.of(silent_cut("a", 1.0))._replace(suffix="_rep1")]], 3)
    assert [each[0].cut().id for each in copies] == ["a_rep1", "a_rep1_dup0", "a_rep1_dup1"]


@pytest.mark.parametrize("lazy", ["always", "never"])
def test_epochs_are_the_same_in_memory_and_on_disk_and_differ_by_seed_and_number(folder, lazy):
    path = mix(folder, english=1.0, chinese=2.0, german=0.1)
    first, second = drawn(path, (0, 1), lazy=lazy)
    other = drawn(path, (0,), seed=2, lazy=lazy)[0]
    assert drawn(path, (0,), lazy=lazy)[0] == first
    assert sorted(other) == sorted(first) and other != first  # the seed orders, the epoch selects
    assert sorted(second) != sorted(first)
    assert sorted(drawn(path, (0,), lazy="always")[0]) == sorted(drawn(path, (0,), lazy="never")[0])


def batches_of(config, world_size: int, state=None) -> list[TrainingBatches]:
    ranks = [TrainingBatches(config, 1, rank, world_size) for rank in range(world_size)]
    for batches in ranks if state else []:
        batches.load_state_dict(state)
    return ranks


@pytest.mark.parametrize("lazy", ["always", "never"])
@pytest.mark.parametrize(("stop", "worlds"), [(1, (2, 2)), (7, (1, 3)), (12, (3, 2)), (5, (4, 1))])
def test_resume_at_any_batch_on_other_ranks_reads_the_rest_of_the_epoch(folder, lazy, stop, worlds):
    config = settings(mix(folder, english=1.0, chinese=3.0, german=0.2), lazy=lazy)
    (expected,) = drawn(config.train, (1,), lazy=lazy)
    before = batches_of(config, worlds[0])
    seen = []
    for batches in before:
        batches.epoch = 1
        seen += [name for batch in islice(batches, stop) for name in batch.ids]
    state = before[0].state_dict()
    after = batches_of(config, worlds[1], state)
    rest = [name for batches in after for name in epoch(batches) if "_dup" not in name]
    assert Counter(seen + rest) == Counter(expected)
    if worlds[0] == worlds[1]:
        whole = TrainingBatches(config, 1, 0, worlds[0])
        whole.epoch = 1
        resumed = batches_of(config, worlds[0], state)[0]
        assert epoch(whole)[len([n for b in islice(_from(config, worlds[0]), stop) for n in b.ids]) :] == epoch(resumed)


def _from(config, world_size: int) -> TrainingBatches:
    batches = TrainingBatches(config, 1, 0, world_size)
    batches.epoch = 1
    return batches


@pytest.mark.slow
def test_loader_processes_load_the_batches_of_this_process(folder):
    path = mix(folder, english=1.0, chinese=3.0, german=0.2)
    found = [
        [batch.ids for batch in islice(TrainingBatches(settings(path, lazy=lazy, num_workers=workers), 1), 160)]
        for lazy in ("always", "never")
        for workers in (0, 2)
    ]
    assert found[0] == found[1] and found[2] == found[3]


@pytest.mark.parametrize("lazy", ["always", "never"])
def test_reseed_leaves_out_at_most_the_buffer(folder, lazy):
    config = settings(mix(folder, english=1.0, chinese=3.0, german=0.2), lazy=lazy, resume="reseed")
    first = TrainingBatches(config, 1)
    seen = [name for batch in islice(first, 10) for name in batch.ids]
    (second,) = batches_of(config, 1, first.state_dict())
    rest = epoch(second)
    (expected,) = drawn(config.train, lazy=lazy)
    assert not set(seen) & set(rest) and set(seen + rest) <= set(expected)
    assert len(expected) - len(seen + rest) <= config.buffer_clips


def test_hours_are_divided_over_the_members(folder):
    path = mix(folder, english=1.0, chinese=1.0, german=1.0)
    whole = open_manifest(settings(path, lazy="never"))
    half = open_manifest(settings(path, lazy="never", hours=whole.seconds() / 7200))
    assert half.seconds() == pytest.approx(whole.seconds() / 2, rel=0.1)
    for one, other in zip(half.parts, whole.parts):
        assert one.manifest.seconds() == pytest.approx(other.manifest.seconds() / 2, rel=0.15)


def test_each_member_is_held_in_memory_or_read_line_by_line(folder, monkeypatch):
    sizes = [file.stat().st_size for file in shards(str(mix(folder)))]
    monkeypatch.setattr("arkasr.data.training_cuts.LARGE", sizes[0])
    manifest = open_manifest(settings(mix(folder, english=1.0, chinese=1.0, german=1.0), lazy="auto"))
    assert isinstance(manifest, MixedManifest)
    assert [type(part.manifest) for part in manifest.parts] == [OnDisk, InMemory, InMemory]


def test_mixes_inside_a_mix_have_one_share(folder):
    write_mix(folder / "inner.mix.yaml", [Member("english/base.jsonl.gz", "a"), Member("german/base.jsonl.gz", "b")])
    path = folder / "outer.mix.yaml"
    write_mix(path, [Member("inner.mix.yaml", "one", 1.0), Member("chinese/base.jsonl.gz", "two", 1.0)])
    assert [(leaf.prefix, leaf.member) for leaf in leaves(path)] == [
        ("one/a/", "one"),
        ("one/b/", "one"),
        ("two/", "two"),
    ]
    manifest = open_manifest(settings(path, lazy="never"))
    assert manifest.parts[0].rate == manifest.parts[1].rate
    names = list(ids(*manifest.epoch(1, 0)))
    assert shares(path, names)["two"] == pytest.approx(0.5, abs=0.05)


def test_digest_changes_with_weights_and_content(folder):
    found = [
        digest(str(mix(folder, **weights)))
        for weights in ({}, {**dict.fromkeys(SIZES, 1.0)}, {"english": 2.0, "german": 1.0})
    ]
    path = folder / "german" / "base.jsonl.gz"
    write_cuts(path, [silent_cut("other", 2.0)])
    found.append(digest(str(mix(folder))))
    assert len(set(found)) == 4 and found[3] == digest(str(mix(folder)))


def test_rates_follow_hours_and_weights():
    assert rates({"a": 1.0, "b": 1.0}, {"a": 30.0, "b": 10.0}) == {"a": 0.666667, "b": 2.0}
    assert rates({"a": 30.0, "b": 10.0}, {"a": 30.0, "b": 10.0}) == {"a": 1.0, "b": 1.0}


def written(folder: Path, text: str) -> Path:
    path = folder / "bad.mix.yaml"
    path.write_text(text)
    return path


ONE, TWO = "{path: english/base.jsonl.gz, name: a%s}", "{path: german/base.jsonl.gz, name: b%s}"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([ONE % ", weight: 0", TWO % ", weight: 1"], r"members\[0\].weight must be above 0 and finite, got 0; delete"),
        ([ONE % ", weight: 1", TWO % ", weight: -2"], r"members\[1\].weight must be above 0 and finite, got -2"),
        ([ONE % ", weight: .inf", TWO % ", weight: 1"], r"weight must be above 0 and finite, got inf"),
        ([ONE % ", weight: .nan", TWO % ", weight: 1"], r"weight must be a number, got '.nan'"),
        ([ONE % ", weight: true", TWO % ", weight: 1"], r"weight must be a number, got true"),
        ([ONE % ", weight: 1", TWO % ""], "member b has no weight, but others have; give each member one, or none"),
        ([], "a mix needs at least one member; add one to the key members"),
        ([ONE % "", ONE % ""], "two members have the name a; give each member its own name"),
        ([ONE % "", "{path: ./english/base.jsonl.gz, name: b}"], "two members have the path"),
        ([ONE % "", "{path: x/base.jsonl.gz, name: b}"], "member b .*is not prepared .*--stage 1"),
        ([ONE % "", "{path: german/base.jsonl.gz, name: 'a/b'}"], r"members\[1\].name must be at most 100 letters"),
        ([ONE % "", "{path: '', name: b}"], r"members\[1\].path must not be empty"),
        ([ONE % "", "{name: b}"], r"members\[1\].path is missing"),
        ([ONE % "", "{path: german/base.jsonl.gz, wieght: 2}"], r"unknown key members\[1\].wieght; did you mean"),
        ([ONE % "", "german"], r"members\[1\] must be a mapping with the keys path, name, weight"),
        ([ONE % "", "{path: bad.mix.yaml}"], "more than 5 mixes inside each other"),
    ],
)
def test_wrong_mixes_are_refused(folder, members, message):
    path = written(folder, "members: [" + ", ".join(members) + "]")
    for read in (lambda: leaves(path), lambda: open_manifest(settings(path)), lambda: digest(str(path))):
        with pytest.raises(UserError, match=message) as error:
            read()
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_weights_inside_a_mix_are_refused(folder):
    inner = mix(folder, english=1.0, german=2.0)
    path = written(folder, f"members: [{{path: {inner}, name: a}}, {{path: chinese/base.jsonl.gz, name: b}}]")
    with pytest.raises(UserError, match="base.mix.yaml: a mix inside a mix must have no weights; delete them"):
        leaves(path)


def test_missing_mix_and_empty_member_are_named(folder):
    with pytest.raises(UserError, match="none.mix.yaml: cannot be read: No such file"):
        read_mix(folder / "none.mix.yaml")
    write_cuts(folder / "german" / "base.jsonl.gz", [])
    for read in (lambda p: list(read_cuts(p)), lambda p: open_manifest(settings(p, lazy="never"))):
        with pytest.raises(UserError, match=r"german/base.jsonl.gz: (holds no cuts|no cut)"):
            read(str(mix(folder)))


def test_written_mix_is_read_back(folder):
    path = mix(folder, english=0.25, german=3.0)
    assert [(m.name, m.weight) for m in read_mix(path)] == [("english", 0.25), ("german", 3.0)]
    assert all(Path(m.path).is_file() for m in read_mix(path))
    with pytest.raises(ValueError, match="must end with .mix.yaml"):
        write_mix(folder / "mix.yaml", [])


def test_batches_of_single_manifests_are_unchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load_batch", lambda cuts, speeds: Batch([cut.id for cut in cuts], [], [], []))
    write_cuts(
        tmp_path / "a.jsonl.gz", [silent_cut(f"clip-{i:04d}", 1.0 + i % 7, "one " * (i % 5 + 1)) for i in range(300)]
    )
    found = []
    for lazy in ("always", "never"):
        for world_size in (1, 3):
            batches = TrainingBatches(settings(tmp_path / "a.jsonl.gz", lazy=lazy), 1, world_size - 1, world_size)
            names = ",".join(name for batch in islice(batches, 250) for name in batch.ids)
            found.append(hashlib.sha256(names.encode()).hexdigest()[:16])
    assert found == [
        "48c81d13fbe3b515",
        "8e40bf82ebfe86a3",
        "7d9c0fddc123a38c",
        "12d8360f2618ed32",
    ]  # of commit da318e7


@pytest.mark.slow
def test_killed_run_on_a_mix_resumes_with_equal_weights(conf, datadir, tmp_path, monkeypatch):
    path = tmp_path / "both.mix.yaml"
    members = [("base", 1.0), ("td", 3.0)]
    write_mix(path, [Member(str(datadir / f"{name}.jsonl.gz"), name, weight) for name, weight in members])
    changes = [f"data.train={path}", "train.steps=12", "train.save_every=6", "train.eval_every=0"]

    def arguments(name: str, workers: int):
        return str(conf), "base", str(tmp_path / name), str(datadir), [*changes, f"data.num_workers={workers}"]

    train(*arguments("whole", 2))
    train_until(monkeypatch, 8, *arguments("cut", 0))
    train(*arguments("cut", 2))
    found = [load_file(tmp_path / name / "base" / "final" / "model.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(weights, found[1][name]) for name, weights in found[0].items())
    seen = [row["epochs_seen"] for row in metrics(tmp_path / "cut" / "base")]
    assert len(seen) == 12 and seen == sorted(seen) and seen[-1] > 1  # more than one epoch
