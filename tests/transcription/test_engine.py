from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from sounds import ToneRecognizer, write

from arkasr.errors import UserError
from arkasr.transcription.engine import AHEAD, WAITING, transcribe_all
from arkasr.transcription.results import Failed, Transcription
from arkasr.transcription.settings import Settings
from arkasr.transcription.source import audio_file
from arkasr.transcription.sources import find_sources

FIXED = Settings(segmentation="fixed", batch_seconds=12.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of 1 to 5 words."""
    folder = tmp_path_factory.mktemp("files")
    for i in range(12):
        write(folder / f"{i:02d}.wav", *(["one", "two", "three", "four", "five"][: 1 + i * 7 % 5]))
    return folder


def expected(i):
    return " ".join(["one", "two", "three", "four", "five"][: 1 + i * 7 % 5])


def run(recognizer, sources, settings=FIXED, **options):
    return list(transcribe_all(recognizer, sources, settings, **options))


def test_results_come_in_the_order_of_the_files_whatever_the_batches(folder):
    for batch_seconds in (1.0, 12.0, 1000.0):
        recognizer = ToneRecognizer()
        results = run(recognizer, find_sources([folder]), replace(FIXED, batch_seconds=batch_seconds))
        assert [result.text for result in results] == [expected(i) for i in range(12)]
        assert [result.name for result in results] == [str(folder / f"{i:02d}.wav") for i in range(12)]
        assert all(max(batch) * len(batch) <= batch_seconds * 16000 or len(batch) == 1 for batch in recognizer.batches)
    assert len(recognizer.batches) == 1


def test_a_result_has_segments_language_model_and_length(folder):
    (result,) = run(ToneRecognizer(), find_sources([folder / "01.wav"]), replace(FIXED, language="German"))
    assert (result.seconds, result.language, result.model, result.notes) == (3.0, "German", "tones", ())
    (segment,) = result.segments
    assert (segment.start, segment.end, segment.text, segment.stopped, segment.looping) == (
        0.0, 3.0, "one two three", True, False,
    )  # fmt: skip


def test_long_files_are_cut_and_joined_without_lost_or_doubled_words(tmp_path):
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero"] * 3
    write(tmp_path / "long.flac", *words)
    results = run(ToneRecognizer(), find_sources([tmp_path]), replace(FIXED, window_seconds=8.0))
    assert results[0].text.split() == words and results[0].seconds == 30.0
    assert len(results[0].segments) > 2


def test_a_model_with_a_limit_gets_shorter_windows(tmp_path):
    recognizer = ToneRecognizer()
    recognizer.max_seconds = 4.0
    write(tmp_path / "a.wav", *["six"] * 10)
    run(recognizer, find_sources([tmp_path]))
    assert max(size for batch in recognizer.batches for size in batch) <= 4 * 16000


def test_one_bad_file_does_not_affect_the_others(folder, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "nan.wav", [0.1, np.nan], 16000, subtype="FLOAT")
    names = [folder / "00.wav", tmp_path / "text.wav", tmp_path / "nan.wav", tmp_path / "absent.wav", folder / "01.wav"]
    results = run(ToneRecognizer(), find_sources(names))
    assert [type(result) for result in results] == [Transcription, Failed, Failed, Failed, Transcription]
    assert "cannot be read as audio" in results[1].reason and "NaN" in results[2].reason
    assert results[3].reason == "no such file; check the path"


def test_a_window_that_the_model_refuses_fails_alone(folder):
    recognizer = ToneRecognizer(fails_at="five")
    results = run(recognizer, find_sources([folder]), replace(FIXED, batch_seconds=1000.0))
    for i, result in enumerate(results):
        assert result.reason == "cannot transcribe five" if "five" in expected(i) else result.text == expected(i)
    assert len(recognizer.batches) < 20


def test_files_with_other_errors_name_the_kind_of_error(folder):
    recognizer = ToneRecognizer()
    recognizer.transcribe = lambda *_: [][0]
    (result,) = run(recognizer, find_sources([folder / "00.wav"]))
    assert result.reason == "IndexError: list index out of range"


def test_smaller_batches_after_memory_ran_out(folder, capsys):
    recognizer = ToneRecognizer(most=2)
    results = run(recognizer, find_sources([folder]), replace(FIXED, batch_seconds=20.0))
    assert [result.text for result in results] == [expected(i) for i in range(12)]
    assert "memory ran out for a batch of" in capsys.readouterr().out
    failed = [i for i, batch in enumerate(recognizer.batches) if len(batch) > 2]
    assert failed and max(failed) < len(recognizer.batches) - 1


def test_memory_for_a_single_window_is_a_user_error(folder):
    with pytest.raises(UserError, match="memory ran out for one window of 1 s; use a smaller model"):
        run(ToneRecognizer(most=0), find_sources([folder / "00.wav"]))


def test_a_lost_connection_is_raised(folder):
    recognizer = ToneRecognizer()
    recognizer.transcribe = lambda *_: (_ for _ in ()).throw(ConnectionError("server is gone"))
    with pytest.raises(ConnectionError):
        run(recognizer, find_sources([folder]))


def test_silence_is_an_empty_text_with_a_note_and_costs_no_decoding(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(32000), 16000)
    recognizer = ToneRecognizer()
    (result,) = run(recognizer, find_sources([tmp_path / "a.wav"]))
    assert (result.text, result.segments, result.seconds) == ("", (), 2.0)
    assert "the audio is silent: all samples are 0" in result.notes and not recognizer.batches


def test_languages_are_those_of_the_sources(folder):
    recognizer, source = ToneRecognizer(), audio_file(str(folder / "00.wav"))
    run(recognizer, [replace(source, language="Chinese"), source], replace(FIXED, language="French"))
    assert sorted(recognizer.languages) == ["Chinese", "French"]


def test_files_are_read_shortly_before_they_are_needed(folder):
    read = 0

    def endless():
        nonlocal read
        for _ in itertools.count():
            read += 1
            yield audio_file(str(folder / "00.wav"))

    results = transcribe_all(ToneRecognizer(), endless(), replace(FIXED, batch_seconds=3.0))
    for _ in range(10):
        next(results)
    assert read <= 10 + 3 * (AHEAD + 1) + WAITING


def test_progress_counts_all_audio(folder):
    heard = []
    run(ToneRecognizer(), find_sources([folder]), on_audio=heard.append)
    assert sum(heard) == sum(1 + i * 7 % 5 for i in range(12))


def test_windows_of_several_files_share_batches(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.wav", *["seven"] * 9)
    recognizer = ToneRecognizer()
    run(recognizer, find_sources([tmp_path]), replace(FIXED, window_seconds=4.0, batch_seconds=100.0))
    assert len(recognizer.batches) == 1 and len(recognizer.batches[0]) == 9


def test_a_failure_is_told_at_once(folder, tmp_path):
    events = []
    sources = find_sources([folder / "00.wav", tmp_path / "absent.wav"])
    for result in transcribe_all(ToneRecognizer(), sources, FIXED, on_failed=lambda each: events.append(each.name)):
        events.append(result.name)  # noqa: PERF401 (the order of both kinds of events counts)
    assert events == [str(tmp_path / "absent.wav"), str(folder / "00.wav"), str(tmp_path / "absent.wav")]


def test_word_times_without_a_ctc_head_are_refused_before_audio_is_read(tmp_path):
    with pytest.raises(UserError, match="has no CTC head"):
        run(ToneRecognizer(), [audio_file(str(tmp_path / "absent.wav"))], replace(FIXED, word_times=True))
