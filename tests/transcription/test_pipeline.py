"""transformers.pipeline("automatic-speech-recognition") with folders of arkasr."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from tiny import eager_to_stop, student, teacher, waveform
from tiny_teachers import glm, save_whisper
from torchaudio.functional import resample
from transformers import AutomaticSpeechRecognitionPipeline, WhisperFeatureExtractor, pipeline

from arkasr import UserError
from arkasr.model.ctc_head import write_ctc_head
from arkasr.model.generation import generate
from arkasr.model.generation.stitching import most_units, stitch
from arkasr.transcription.pipeline import SpeechPipeline

TASK = "automatic-speech-recognition"
MODELS = {"arkasr": lambda: student(5), "qwen3_asr": lambda: teacher(2), "glmasr": lambda: glm(4)}
CLIPS = [waveform(n, n) for n in (16000, 8000, 24000)]


def texts(lm, clips, language="English"):
    """Decode clips with arkasr."""
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(clips), [language] * len(clips))
    return [lm.text(ids) for ids in generate(lm, prompts, [20] * len(clips)).ids]


@pytest.fixture(scope="module")
def lm():
    return eager_to_stop(student(5), 2.0)


@pytest.fixture(scope="module")
def pipe(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    lm.save(folder)
    return pipeline(TASK, model=str(folder), max_new_tokens=20)


@pytest.mark.parametrize("kind", MODELS)
def test_pipeline_gives_the_texts_of_arkasr(kind, tmp_path):
    lm = eager_to_stop(MODELS[kind](), 2.0)
    lm.save(tmp_path)
    pipe = pipeline(TASK, model=str(tmp_path), max_new_tokens=20)
    expected = texts(lm, CLIPS)
    arrays = [clip.numpy() for clip in CLIPS]
    assert isinstance(pipe, SpeechPipeline) and len(set(expected)) > 1
    assert [pipe(array)["text"] for array in arrays] == expected
    assert [found["text"] for found in pipe(arrays, batch_size=2)] == expected
    assert [found["text"] for found in pipe(array for array in arrays)] == expected


def test_pipeline_reads_files_bytes_and_dictionaries(pipe, lm, tmp_path):
    high = resample(CLIPS[0], 16000, 48000)
    path = tmp_path / "two channels at 48 kHz.wav"
    soundfile.write(path, torch.stack([1.5 * high, 0.5 * high], dim=1).numpy(), 48000, subtype="FLOAT")
    expected, close = texts(lm, CLIPS[:1])[0], CLIPS[0].numpy()
    inputs = [
        close,
        CLIPS[0],
        torch.stack([1.5 * CLIPS[0], 0.5 * CLIPS[0]]),
        {"raw": close, "sampling_rate": 16000},
        {"array": close, "sampling_rate": 16000, "path": "unused.wav"},
    ]
    assert [pipe(each)["text"] for each in inputs] == [expected] * len(inputs)
    resampled = resample(high, 48000, 16000)
    decoded = texts(lm, [resampled])[0]
    assert pipe({"array": high.numpy(), "sampling_rate": 48000})["text"] == decoded
    for each in (str(path), path.read_bytes(), {"path": str(path), "bytes": None}):
        assert pipe(each)["text"] == pipe(str(path))["text"] != ""


def test_pipeline_keeps_other_keys_of_a_row(pipe):
    row = {"array": CLIPS[1].numpy(), "sampling_rate": 16000, "id": "clip-7"}
    assert pipe(row)["id"] == ["clip-7"] and row.keys() == {"array", "sampling_rate", "id"}


def test_pipeline_joins_windows_with_strides(pipe, lm):
    """Windows of 1 s that share 0.4 s, cut by hand."""
    audio = waveform(16000 * 2 + 5000, 9)
    cuts = [(0, 16000), (9600, 25600), (19200, 35200), (28800, 37000)]
    expected, *others = texts(lm, [audio[start:end] for start, end in cuts])
    for each in others:
        expected = stitch(expected, each, most_units(0.4))
    for batch_size in (1, 3):
        found = pipe(audio, chunk_length_s=1, stride_length_s=0.2, batch_size=batch_size, return_timestamps=True)
        assert found["text"] == expected
        assert " ".join(chunk["text"] for chunk in found["chunks"]) == expected
        times = [chunk["timestamp"] for chunk in found["chunks"]]
        allowed = [(0.0, 0.8), (0.8, 1.4), (1.4, 2.0), (2.0, 37000 / 16000)]
        assert times and all(min(abs(a - s) + abs(b - e) for s, e in allowed) < 1e-6 for a, b in times)


def test_pipeline_gives_times_of_words(lm, tmp_path):
    torch.manual_seed(0)
    lm.add_ctc_head()
    write_ctc_head(tmp_path, {f"ctc_head.{name}": value for name, value in lm.ctc_head.state_dict().items()})
    lm.ctc_head = None
    lm.save(tmp_path)
    pipe = pipeline(TASK, model=str(tmp_path), max_new_tokens=6)
    found = pipe(CLIPS[2], return_timestamps="word")
    words = [chunk["text"] for chunk in found["chunks"]]
    times = [time for chunk in found["chunks"] for time in chunk["timestamp"]]
    assert words == found["text"].split() and words
    assert times == sorted(times) and 0 <= times[0] < times[-1] <= 1.5


def test_pipeline_passes_options_of_generate(pipe):
    short = pipe(CLIPS[0].numpy(), max_new_tokens=1)["text"]
    both = [pipe(CLIPS[0].numpy(), generate_kwargs={"max_new_tokens": 1})["text"], short]
    assert both[0] == both[1] and len(short) < len(pipe(CLIPS[0].numpy())["text"])
    assert pipe(CLIPS[0].numpy(), num_beams=2, language="zh")["text"]


def encoded(samples):
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV")
    return file.getvalue()


BAD = {
    "no such file": "absent.wav",
    r"holds 0 samples": encoded(np.zeros(0)),
    "cannot be read as audio": b"this is text, and no audio at all",
    r"shape \[8, 100\]": np.zeros((8, 100), np.float32),
    "int16 samples": np.ones(400, np.int16),
    "NaN or infinite": np.full(400, np.nan, np.float32),
    r"keys \['text'\]: holds no audio": {"text": "hello"},
    "stride: is for CTC models": {"array": np.zeros(400), "sampling_rate": 16000, "stride": (1, 1)},
}


@pytest.mark.parametrize("message", BAD)
def test_pipeline_names_what_is_wrong_with_an_input(pipe, message):
    with pytest.raises(UserError, match=message):
        pipe(BAD[message])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"return_timestamps": "char"}, "return_timestamps 'char'.*'word'"),
        ({"language": "Klingon"}, "language 'Klingon'"),
        ({"chunk_length_s": 1, "stride_length_s": 0.5}, "stride_length_s 0.5"),
        ({"num_return_sequences": 2, "num_beams": 2}, "num_return_sequences: 2"),
        ({"return_timestamps": "word"}, "return_timestamps 'word': .*no CTC head.*; use True"),
    ],
)
def test_pipeline_refuses_options_that_it_cannot_have(pipe, options, message):
    with pytest.raises(UserError, match=message):
        pipe(waveform(40000), **options)


def test_pipeline_of_other_models_stays_that_of_transformers(tmp_path):
    save_whisper(tmp_path)
    WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(tmp_path)
    assert type(pipeline(TASK, model=str(tmp_path))) is AutomaticSpeechRecognitionPipeline


@pytest.mark.slow
def test_one_import_registers_the_pipeline(pipe):
    program = (
        "import arkasr.model, transformers as t\n"
        f"print(type(t.pipeline({TASK!r}, model={pipe.model.name_or_path!r})).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SpeechPipeline"] and "warn" not in done.stderr.lower()
