"""Fixtures of the tests of decoding and labelling: a writable data directory and a simple teacher plugin."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fresh_plugins import fresh_plugins

ECHO = '''
"""A teacher that transcribes the number of samples, and returns an empty text for clips below one second."""
from dataclasses import dataclass
import arkasr

OPTIONS, LENGTHS = [], []  # one entry per created teacher, one per transcribed clip
ERRORS, REPORTS = {}, {}  # by number of samples: what `transcribe` raises, and `stopped` and `looping`

@dataclass
class Options:
    path: str = ""
    voice: str = ""

class Echo:
    tokenizer, stop_ids = None, [0]
    def __init__(self, options, device):
        OPTIONS.append(options)
    def transcribe(self, waveforms, languages):
        for error in (ERRORS[len(w)] for w in waveforms if len(w) in ERRORS):
            raise error
        LENGTHS.extend(len(w) for w in waveforms)
        texts = [f"{lang} {len(w)}" if len(w) >= 16000 else "" for w, lang in zip(waveforms, languages, strict=True)]
        return [arkasr.Transcript(t, *REPORTS[len(w)]) if len(w) in REPORTS else t for t, w in zip(texts, waveforms)]
    def score(self, waveforms, languages, token_ids):
        raise RuntimeError("labelling and decoding need no scores")

@arkasr.hookimpl
def register_teachers(register):
    register("echo", Echo, Options)
    register("echo_again", Echo, Options)
'''


@pytest.fixture
def own_data(datadir, tmp_path):
    """Return a writable copy of the data directory. The audio is not copied."""
    return Path(shutil.copytree(datadir, tmp_path / "data", ignore=shutil.ignore_patterns("audio")))


@pytest.fixture
def echo(tmp_path, monkeypatch):
    """Install a package that registers the teachers `echo` and `echo_again`."""
    (tmp_path / "echo-1.0.dist-info").mkdir()
    (tmp_path / "echo-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: echo\nVersion: 1.0\n")
    (tmp_path / "echo-1.0.dist-info" / "entry_points.txt").write_text("[arkasr]\necho = fake_echo\n")
    (tmp_path / "fake_echo.py").write_text(ECHO)
    monkeypatch.syspath_prepend(tmp_path)
    with fresh_plugins("fake_echo"):
        yield
