"""Audio of test sets that stands in the training cuts of another data directory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from shard_files import silent_cut

from arkasr.corpora.prepare import prepare
from arkasr.corpora.prepared_leaks import refuse_prepared_leaks, rows
from arkasr.data.blocks import write_cuts
from arkasr.errors import UserError

MIX = "name: both\nlayout: mix\nmembers:\n  one: ../one/corpus.yaml\n  two: ../two/corpus.yaml\n"


def member(egs: Path, name: str, **parts: int) -> None:
    """Prepare a member with one clip per part: noise of the given seed."""
    folder = egs / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "corpus.yaml").write_text(f"name: {name}\nlayout: jsonl\nlanguage: German\n")
    for part, seed in parts.items():
        samples = np.random.default_rng(seed).integers(-9000, 9000, 16000, dtype=np.int16)
        soundfile.write(folder / f"{name}_{part}_{seed}.flac", samples, 16000, subtype="PCM_16")
        (folder / f"{part}.jsonl").write_text(json.dumps({"audio": f"{name}_{part}_{seed}.flac", "text": "ja"}) + "\n")
    prepare(str(folder / "corpus.yaml"), "mini", str(folder), str(folder / "data"), 1)


def prepare_mix(egs: Path) -> Path:
    (egs / "mix").mkdir(exist_ok=True)
    (egs / "mix" / "corpus.yaml").write_text(MIX)
    prepare(str(egs / "mix" / "corpus.yaml"), "mini", f"{egs}/{{member}}/data", str(egs / "mix" / "data"), 1)
    return egs / "mix" / "data"


@pytest.mark.parametrize("part", ["dev", "test"])
def test_member_of_a_mix_must_not_hold_audio_that_another_trains_on(tmp_path, part):
    member(tmp_path, "one", train=1, dev=2, test=3)
    member(tmp_path, "two", train=4, dev=5, test=6)
    assert (prepare_mix(tmp_path) / "opd.mix.yaml").is_file()
    member(tmp_path, "two", train=4, **{part: 1})
    with pytest.raises(UserError, match=rf"mix/corpus.yaml: 1 cuts of two-{part} also stand in the .*one_train_1.flac"):
        prepare_mix(tmp_path)


def test_published_members_are_not_compared(tmp_path):
    member(tmp_path, "one", train=1, test=3)
    member(tmp_path, "two", train=4, test=1)
    for name in ("one", "two"):  # their own layout no longer matters
        (tmp_path / name / "corpus.yaml").write_text("name: x\nlayout: aishell\n")
    assert prepare_mix(tmp_path).is_dir()


def test_equal_ids_and_lengths_in_shards_are_logged(tmp_path, capsys):
    cut = silent_cut("0001", 10.0)
    cut.recording.sources[0].type = "memory"
    train, test = (write_cuts(tmp_path / f"{name}.jsonl.gz", [cut]) or tmp_path / f"{name}.jsonl.gz" for name in "ab")
    refuse_prepared_leaks("x", train, {"calls": test}, True, 1)
    assert "x: 1 cuts of calls have the id and the length of cuts of" in capsys.readouterr().out


def test_odd_manifests_and_unreadable_audio_are_left_to_their_reader(tmp_path):
    manifest = tmp_path / "odd.jsonl"
    items = [silent_cut(f"{number}", 1.0).to_dict() for number in range(3)]
    items[0] |= {"start": "x"}
    items[1]["recording"]["sources"] = [{"type": "file", "source": 5}]
    manifest.write_text("".join(json.dumps(item) + "\n" for item in items))
    assert [(row.id, row.begin, row.path) for row in rows(manifest)] == [
        ("0", 0.0, "/nowhere/0.wav"),
        ("1", 0.0, ""),
        ("2", 0.0, "/nowhere/2.wav"),
    ]
    refuse_prepared_leaks("x", manifest, {"same": manifest}, True, 1)
