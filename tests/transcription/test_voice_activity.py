"""Silero's detector on synthetic speech. docs/long_audio.md has figures on real speech."""

from __future__ import annotations

import pytest
import torch

from arkasr.interfaces import SAMPLE_RATE
from arkasr.transcription.settings import Settings
from arkasr.transcription.voice_activity import FRAME, SpeechDetector
from arkasr.transcription.windows import cut

TEXT = "a young farmer opened five windows and closed the old door behind her"
BEFORE, AFTER = 3 * SAMPLE_RATE, 4 * SAMPLE_RATE

pytest.importorskip("silero_vad")
pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    from arkasr.corpora.synthetic.voices import Synthesizer, Voice

    with Synthesizer() as synthesizer:
        return torch.from_numpy(synthesizer.synthesise(TEXT, Voice("en-us", 150, 50, 50)))


def in_hiss(speech: torch.Tensor, level: float, noise: float = 1e-4) -> torch.Tensor:
    samples = noise * torch.randn(BEFORE + len(speech) + AFTER, generator=torch.Generator().manual_seed(0))
    samples[BEFORE : BEFORE + len(speech)] += 10 ** (level / 20) * speech
    return samples


def flags_of(samples: torch.Tensor, block: int = SAMPLE_RATE) -> list[bool]:
    detector = SpeechDetector()
    return [*[flag for part in samples.split(block) for flag in detector.advance(part)], *detector.finish()]


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, -20, -40])
def test_detector_finds_speech_at_any_level_and_not_hiss(speech, level):
    flags = flags_of(in_hiss(speech, level, 1e-5))
    first, last = BEFORE // FRAME, (BEFORE + len(speech)) // FRAME
    assert sum(flags[first:last]) > 0.9 * (last - first)
    assert not any(flags[: first - 4])
    assert not any(flags[last + 20 :])


@pytest.mark.slow
def test_detector_gives_the_same_flags_for_any_blocks_and_while_others_work(speech):
    samples = in_hiss(speech, 0)
    alone = flags_of(samples)
    assert len(alone) == -(-len(samples) // FRAME)
    assert flags_of(samples, 777) == alone
    first, second, found = SpeechDetector(), SpeechDetector(), []
    for part, other in zip(samples.split(5000), samples.flip(0).split(5000)):
        found += first.advance(part)
        second.advance(other)
    assert found + first.finish() == alone


def test_detector_leaves_the_number_of_threads_alone(monkeypatch):
    monkeypatch.setattr("arkasr.transcription.voice_activity._free", [])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        SpeechDetector()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_windows_of_a_long_recording_hold_its_speech_and_skip_its_silence(speech):
    parts = torch.cat([in_hiss(speech, level) for level in (0, -15, -30)])
    found = cut(parts.split(3000), Settings(window_seconds=10))
    windows = list(found)
    assert len(windows) == 3
    period = len(parts) / 3 / SAMPLE_RATE
    for i, window in enumerate(windows):
        start = i * period + BEFORE / SAMPLE_RATE
        assert start - 0.5 < window.start < start
        assert start + len(speech) / SAMPLE_RATE < window.end < start + len(speech) / SAMPLE_RATE + 1
    assert found.notes[0] == "cut at pauses into 3 windows"
    assert found.notes[1].startswith("skipped 4 stretches without speech")
