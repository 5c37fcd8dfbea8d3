"""Texts without local paths."""

from __future__ import annotations

import pytest

from arkasr.export.redact import public_text

PATHS = [
    ("/data/LibriSpeech", ".../LibriSpeech"),
    ("--corpus_dir=/data/my corpus", "--corpus_dir=.../my corpus"),
    ("~/x/conf.yaml", ".../conf.yaml"),
    ("~me/conf.yaml", ".../conf.yaml"),
    ("//server/share/a", ".../a"),
    ("a:/home/me/b", "a:.../b"),
    ("[/home/me/a, '/home/me/b']", "[.../a, '.../b']"),
    ("/home/me/arkasr/egs/aishell/run.sh", "egs/aishell/run.sh"),
    ("https://host/a/b", "https://host/a/b"),
    ("http://host:80/a", "http://host:80/a"),
    ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
    ("../exp/mini", "../exp/mini"),
    ("exp/try/base", "{expdir}/base"),
    ("exp/tryout", "exp/tryout"),
]


@pytest.mark.parametrize(("text", "shared"), PATHS)
def test_public_text_removes_local_paths(text, shared):
    assert public_text(text, {"exp/try": "{expdir}"}) == shared
