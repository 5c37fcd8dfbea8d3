"""Stage 1 on corpora whose folders and files are behind symbolic links, broken or unreadable."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from corpora_on_disk import CASES, MAKERS, aishell, case, cuts, dropped, librispeech, move_behind_link, run

from arkasr.errors import UserError

LINKED = [
    *(("librispeech", path) for path in ("train-clean-5", "train-clean-5/131", "train-clean-5/131/7")),
    ("librispeech", "train-clean-5/131/7/131-7-0000.flac"),
    ("librispeech", "train-clean-5/131/7/131-7.trans.txt"),
    *(("aishell", f"data_aishell{path}") for path in ("", "/wav", "/wav/train", "/wav/train/S0002", "/transcript")),
    *(("wenetspeech", path) for path in ("audio", "audio/l", "audio/l/B00000/YL.opus", "WenetSpeech.json")),
]


@pytest.mark.slow
@pytest.mark.parametrize("name, path", LINKED)
def test_prepare_reads_folders_and_files_behind_links(tmp_path, name, path):
    root = MAKERS[name](tmp_path / "c")
    before = run(name, root, tmp_path / "before")
    move_behind_link(root / path, tmp_path / "elsewhere" / "x")
    after = run(name, root, tmp_path / "after")
    counts = [{key: (s["cuts"], s["dropped"]) for key, s in facts["sets"].items()} for facts in (before, after)]
    assert counts[0] == counts[1] and dropped(tmp_path / "after") == []
    assert all(cut.load_audio().size for cut in cuts(tmp_path / "after", "train"))


def test_prepare_reads_a_linked_corpus(tmp_path):
    librispeech(tmp_path / "real")
    (tmp_path / "c").symlink_to("real")
    assert run("librispeech", tmp_path / "c", tmp_path / "data")["sets"]["train"]["cuts"] == 4


@pytest.mark.parametrize(
    "name, path", [("librispeech", "train-clean-5/131"), ("aishell", "data_aishell/wav/train/S0009")]
)
def test_prepare_refuses_links_to_nothing_by_their_path(tmp_path, name, path):
    root = MAKERS[name](tmp_path / "c")
    shutil.rmtree(root / path, ignore_errors=True)
    (root / path).symlink_to("/mnt/gone")
    with pytest.raises(UserError, match=rf"{root / path}: leads to nothing \(/mnt/gone\); restore what it leads to"):
        run(name, root, tmp_path / "data")


def test_prepare_refuses_a_part_or_corpus_that_leads_to_nothing(tmp_path):
    root = librispeech(tmp_path / "c")
    (root / "train-clean-100").symlink_to("/mnt/gone")
    with pytest.raises(UserError, match="train-clean-100: leads to nothing"):
        run("librispeech", root, tmp_path / "data")
    root = aishell(tmp_path / "d")
    move_behind_link(root / "data_aishell" / "transcript", tmp_path / "x")
    shutil.rmtree(tmp_path / "x")
    with pytest.raises(UserError, match=r"not the aishell corpus .*data_aishell/transcript: leads to nothing"):
        run("aishell", root, tmp_path / "data2")


def test_prepare_counts_audio_files_that_lead_to_nothing(tmp_path):
    root = librispeech(tmp_path / "c")
    home = root / "train-clean-5" / "131" / "7"
    for name in ("131-7-0000", "131-7-0009"):
        (home / f"{name}.flac").unlink(missing_ok=True)
        (home / f"{name}.flac").symlink_to("/mnt/gone.flac")
    run("librispeech", root, tmp_path / "data")
    assert dropped(tmp_path / "data") == [
        ("train", "131-7-0000", "audio file is missing"),
        ("train", "131-7-0009", "audio without transcript"),
    ]


@pytest.mark.parametrize(
    "name, path",
    [
        ("librispeech", "train-clean-5"),
        ("librispeech", "dev-clean-2/112/7"),
        ("aishell", "data_aishell/wav/train/S0002"),
    ],
)
def test_prepare_refuses_unreadable_folders_by_their_path(tmp_path, monkeypatch, name, path):
    root = MAKERS[name](tmp_path / "c")
    real = os.scandir

    def scandir(folder):
        if Path(folder) == root / path:
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)  # root may read everything
    with pytest.raises(UserError, match=rf"{root / path}: the folder cannot be read \(Permission denied\); make it"):
        run(name, root, tmp_path / "data")


@pytest.mark.parametrize("path, target", [("train-clean-5/131/up", "../.."), ("train-clean-5/131/7/7", "../7")])
def test_prepare_ends_at_loops_of_links(tmp_path, capsys, path, target):
    root = librispeech(tmp_path / "c")
    (root / path).symlink_to(target)
    assert run("librispeech", root, tmp_path / "data")["sets"]["train"]["cuts"] == 4
    assert f"{path}: not followed" in capsys.readouterr().out and dropped(tmp_path / "data") == []


def test_audio_beside_its_transcript_is_found_under_any_folder_names(tmp_path):
    root = librispeech(tmp_path / "c")
    (root / "train-clean-5" / "131").rename(root / "train-clean-5" / "speaker-131")
    run("librispeech", root, tmp_path / "data")
    assert len(cuts(tmp_path / "data", "train")) == 4 and dropped(tmp_path / "data") == []


@pytest.mark.slow
@pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases at {CASES}")
@pytest.mark.parametrize(
    "name, recipe, train",
    [("01-linked-speaker", "librispeech", 14), ("03-linked-speaker-aishell", "aishell", 16),
     ("04-bom-librispeech", "librispeech", 8), ("06-bom-wenetspeech", "wenetspeech", 8)],
)  # fmt: skip
def test_cases_give_all_clips(tmp_path, name, recipe, train):
    facts = run(recipe, case(tmp_path / "c", name), tmp_path / "data")
    assert facts["sets"]["train"]["cuts"] == train and dropped(tmp_path / "data") == []


def test_ids_that_lead_out_of_the_corpus_are_dropped(tmp_path):
    root = librispeech(tmp_path / "c")
    transcript = next((root / "train-clean-5").rglob("*.txt"))
    bad = ["../../../x", "131-..-..-..-x", "-rf", "/etc/passwd", "a\\b", "x" * 300, ".x"]
    transcript.write_text(transcript.read_text() + "".join(f"{name} WORD\n" for name in bad))
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "data")}
    run("librispeech", root, tmp_path / "data")
    assert dropped(tmp_path / "data") == sorted(("train", name, "id is not allowed") for name in bad)
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "data")} == before


def test_names_that_are_not_utf_8_are_dropped(tmp_path):
    root = librispeech(tmp_path / "c")
    home = next((root / "train-clean-5").glob("*")) / "7"
    os.rename(os.fsencode(home), os.fsencode(home.parent) + b"/\xff")
    (home.parent / os.fsdecode(b"\xfe.flac")).touch()
    run("librispeech", root, tmp_path / "data")
    reasons = [reason for _, _, reason in dropped(tmp_path / "data")]
    assert sorted(reasons) == ["audio without transcript", *["path of the audio is not UTF-8"] * 2]
