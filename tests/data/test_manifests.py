"""Manifests: the files behind a path, their digest, and cuts that are read again in every iteration."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import hashlib

import pytest
from lhotse import CutSet
from shard_files import NUM_CLIPS, shards  # noqa: F401

from arkasr.data.manifests import digest, read_cuts
from arkasr.data.manifests import shards as files_of
from arkasr.errors import UserError


def test_files_of_a_path_are_sorted(shards, tmp_path):
    files = sorted(shards.iterdir())
    (shards / "notes.txt").write_text("not a shard")
    (shards / "old").mkdir()
    for path in (shards, f"{shards}/", shards / "train.*.gz", tmp_path / "sh*ds", tmp_path / "*"):
        assert files_of(str(path)) == files and len(files) == 6
    assert files_of(str(files[2])) == files[2:3]
    (tmp_path / "link").symlink_to(shards)
    assert [file.name for file in files_of(str(tmp_path / "link"))] == [file.name for file in files]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.jsonl.gz", "no such manifest; run the recipe from --stage 1"),
        ("gone.*.jsonl", "no such manifest; run the recipe from --stage 1"),
        ("empty", "holds no .jsonl or .jsonl.gz files; run the recipe from --stage 1"),
        ("link.jsonl", "a link to nowhere.jsonl, which does not exist; copy that file, or remove the link"),
    ],
)
def test_path_without_files_is_an_error(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.jsonl").symlink_to("nowhere.jsonl")
    for read in (read_cuts, digest):
        with pytest.raises(UserError) as error:
            read(str(tmp_path / path))
        assert str(error.value).startswith(f"{tmp_path / path}: {message}")


def test_cuts_are_read_again_in_every_iteration(shards):
    cuts = read_cuts(str(shards))
    assert list(cuts) == list(cuts) and len(list(cuts)) == NUM_CLIPS
    CutSet(list(cuts)[:7]).to_file(shards / "train.000.jsonl.gz")
    assert len(list(cuts)) == NUM_CLIPS - 3


def test_digest_covers_all_files_in_order(shards):
    files = sorted(shards.iterdir())
    parts = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
    assert digest(str(shards)) == digest(str(shards / "*")) == hashlib.sha256(parts).hexdigest()
    whole = hashlib.sha256(hashlib.sha256(files[0].read_bytes()).digest()).hexdigest()
    assert digest(str(files[0])) == whole
    files[3].write_bytes(files[3].read_bytes() + b" ")
    assert digest(str(shards)) != hashlib.sha256(parts).hexdigest()
