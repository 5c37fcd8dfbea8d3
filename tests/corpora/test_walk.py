"""The walk over a corpus: links are followed once, and nothing is left out without a message."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from arkasr.corpora.layouts.walk import find_files, require_readable, subfolders
from arkasr.errors import UserError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(root: Path, **options) -> list[str]:
    return [str(path.relative_to(root)) for path in find_files(root, (".flac", ".txt"), **options)]


@pytest.mark.parametrize("link", ["a", "a/1", "a/1/x"])
def test_find_files_follows_linked_folders_at_every_depth(tmp_path, link):
    root = tmp_path / "root"
    for name in ("a/1/x/1.flac", "b/2/y/2.flac"):
        touch(root / name)
    (root / link).rename(tmp_path / "elsewhere")
    (root / link).symlink_to(tmp_path / "elsewhere")
    assert names(root) == ["a/1/x/1.flac", "b/2/y/2.flac"]


@pytest.mark.parametrize("absolute", [False, True])
def test_a_link_to_a_folder_that_was_copied_as_text_is_an_error(tmp_path, absolute):
    root = tmp_path / "root"
    touch(root / "100" / "1.flac")
    touch(tmp_path / "far" / "2.flac")
    (root / "README").write_text("100 and 200 are speakers\n")
    assert names(root) == ["100/1.flac"]
    (root / "200").write_text(str(tmp_path / "far") if absolute else "../far")
    for walk in (names, subfolders, lambda folder: require_readable(folder, 1)):
        with pytest.raises(UserError, match=r"200: is a text file with the path of a folder \(.*far\)"):
            walk(root)


def test_find_files_follows_a_linked_root_and_linked_files(tmp_path):
    touch(tmp_path / "real" / "1.flac")
    touch(tmp_path / "far.flac")
    (tmp_path / "real" / "2.flac").symlink_to(tmp_path / "far.flac")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert names(tmp_path / "root") == ["1.flac", "2.flac"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "../../../.."])
def test_find_files_does_not_follow_links_to_folders_that_contain_them(tmp_path, capsys, target):
    root = tmp_path / "corpus" / "root"
    touch(root / "a" / "b" / "1.flac")
    touch(tmp_path / "corpus" / "other" / "2.flac")
    (root / "a" / "b" / "loop").symlink_to(target)
    assert names(root) == ["a/b/1.flac"]
    assert "loop: not followed" in capsys.readouterr().out


def test_find_files_reads_every_folder_once_behind_many_links(tmp_path, monkeypatch, capsys):
    root = tmp_path / "root"
    for number in range(12):
        touch(root / str(number) / f"{number}.flac")
        for other in range(12):
            (root / str(number) / f"to{other}").symlink_to(f"../{other}")
    read, real = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: read.append(folder) or real(folder))
    assert names(root) == sorted(f"{number}/{number}.flac" for number in range(12))
    assert len(read) == 13 and capsys.readouterr().out.count("not followed") == 144


def test_find_files_leaves_out_hidden_files_and_folders_and_counts_them(tmp_path, capsys):
    for name in ("a/1.flac", "a/._1.flac", ".snapshot/1.flac", "a/.completed"):
        touch(tmp_path / name)
    (tmp_path / ".link").symlink_to("nowhere")
    assert names(tmp_path) == ["a/1.flac"]
    assert "2 hidden files and folders left out" in capsys.readouterr().out


def test_find_files_keeps_the_name_of_a_folder_that_a_link_also_reaches(tmp_path):
    root = tmp_path / "root"
    touch(root / "z" / "1.flac")
    (root / "a").symlink_to("z")
    assert names(root) == ["z/1.flac"]


@pytest.mark.parametrize("target", ["nowhere", "200"])  # to nothing, and to itself
def test_find_files_refuses_links_to_nothing_by_their_path(tmp_path, target):
    touch(tmp_path / "100" / "1.flac")
    (tmp_path / "200").symlink_to(target)
    with pytest.raises(UserError, match=rf"{tmp_path}/200: leads to nothing \({target}\); restore"):
        names(tmp_path)
    (tmp_path / "200").rename(tmp_path / "200.flac")
    (tmp_path / "200.flac").unlink()
    (tmp_path / "200.flac").symlink_to("nowhere")
    assert names(tmp_path, optional=(".flac",)) == ["100/1.flac", "200.flac"]


def refuse(monkeypatch, forbidden: Path) -> None:
    """Let a folder be unreadable, also for root."""
    real = os.scandir

    def scandir(folder):
        if os.path.realpath(folder) == str(forbidden):
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)


def test_unreadable_folders_are_named(tmp_path, monkeypatch):
    touch(tmp_path / "a" / "b" / "1.flac")
    refuse(monkeypatch, tmp_path / "a" / "b")
    with pytest.raises(UserError, match=rf"{tmp_path}/a/b: the folder cannot be read \(Permission denied\); make"):
        names(tmp_path)
    with pytest.raises(UserError, match="a/b: the folder cannot be read"):
        require_readable(tmp_path, depth=2)
    require_readable(tmp_path, depth=1)


def test_subfolders_lists_folders_links_and_links_to_nothing(tmp_path):
    for name in ("real", ".hidden"):
        (tmp_path / name).mkdir()
    touch(tmp_path / "file")
    (tmp_path / "linked").symlink_to("real")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "file link").symlink_to("file")
    assert subfolders(tmp_path) == ["gone", "linked", "real"]
    with pytest.raises(UserError, match="nothing: leads to nothing"):
        subfolders(tmp_path / "nothing")
