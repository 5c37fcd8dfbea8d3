"""Texts that do not end: the pipeline limits their tokens as `arkasr transcribe` does."""

from __future__ import annotations

import pytest
import torch
from tiny import eager_to_stop, student, teacher, waveform
from tiny_teachers import glm
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, pipeline

import arkasr.model  # noqa: F401 (registers the pipeline)
from arkasr.transcription import pipeline as module
from arkasr.transcription.assembly import Assembly
from arkasr.transcription.pipeline_limits import TokenCaps, sets_limit
from arkasr.transcription.recognizer import Recognizer

TASK = "automatic-speech-recognition"
MODELS = {"arkasr": lambda: student(5), "qwen3_asr": lambda: teacher(2), "glmasr": lambda: glm(4)}
SECONDS = (0.5, 1.0, 1.5, 3.0)
CLIPS = [waveform(int(16000 * seconds), seed) for seed, seconds in enumerate(SECONDS)]
CAPS = [15, 27, 40, 77]  # 2 + ceil(25 * seconds)


class After(StoppingCriteria):
    def __init__(self, count):
        self.count = count

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.count)


def runaway(kind, folder):
    """Save a model that never stops, in a folder with another limit of tokens."""
    lm = eager_to_stop(MODELS[kind](), 0.0)
    lm.set_generation(7)
    lm.save(folder)
    return lm


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runaway") / "model"
    runaway("arkasr", folder)
    return folder


def fields(text):
    return str(text), text.stopped, text.looping, text.num_tokens


def transcripts(monkeypatch, pipe, **options):
    """Return the transcripts of the clips before one is decoded again."""
    found = []
    add = Assembly.add
    with monkeypatch.context() as patched:
        patched.setattr(module.Assembly, "add", lambda self, *args: (found.append(args[1]), add(self, *args)))
        pipe([clip.numpy() for clip in CLIPS], batch_size=3, **options)
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_a_text_that_does_not_end_is_cut_where_arkasr_cuts_it(monkeypatch, tmp_path, kind):
    lm = runaway(kind, tmp_path)
    pipe = pipeline(TASK, model=str(tmp_path))
    expected = Recognizer("tiny", lm).transcribe(CLIPS, ["English"] * len(CLIPS))
    found = transcripts(monkeypatch, pipe)
    assert list(map(fields, found)) == list(map(fields, expected))
    assert [text.num_tokens for text in found] == CAPS and not any(text.stopped for text in found)


def test_the_pipeline_and_arkasr_take_the_limit_from_one_place(monkeypatch, saved):
    pipe = pipeline(TASK, model=str(saved))
    monkeypatch.setattr(Recognizer, "tokens_per_second", 6.0)
    assert [text.num_tokens for text in transcripts(monkeypatch, pipe)] == [5, 8, 11, 20]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_beams": 2}, CAPS),
        ({"do_sample": True, "top_k": 5}, CAPS),
        ({"generation_config": GenerationConfig(do_sample=False)}, CAPS),
        ({"max_new_tokens": 50}, [50] * 4),
        ({"generate_kwargs": {"max_new_tokens": 50}}, [50] * 4),
        ({"generation_config": GenerationConfig(max_new_tokens=50)}, [50] * 4),
        ({"stopping_criteria": StoppingCriteriaList([After(20)])}, [15, 20, 20, 20]),
    ],
)
def test_other_options_keep_the_limit_and_a_limit_of_the_caller_replaces_it(monkeypatch, saved, options, expected):
    pipe = pipeline(TASK, model=str(saved))
    assert [text.num_tokens for text in transcripts(monkeypatch, pipe, **options)] == expected


def test_a_limit_of_the_constructor_holds_unless_the_call_sets_one(monkeypatch, saved):
    pipe = pipeline(TASK, model=str(saved), max_new_tokens=9)
    assert [text.num_tokens for text in transcripts(monkeypatch, pipe)] == [9] * 4
    assert [text.num_tokens for text in transcripts(monkeypatch, pipe, max_new_tokens=30)] == [30] * 4


def test_token_caps_hold_for_all_beams_of_a_clip():
    ended = TokenCaps([2, 4])
    assert [ended(torch.zeros(6, tokens), None).tolist() for tokens in (1, 2, 4)] == [
        [False] * 6,
        [True] * 3 + [False] * 3,
        [True] * 6,
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"max_new_tokens": None, "num_beams": 2}, False),
        ({"generation_config": GenerationConfig()}, False),
        ({"generation_config": None}, False),
        ({"max_length": 9}, True),
        ({"generation_config": GenerationConfig(max_length=9)}, True),
    ],
)
def test_sets_limit(options, expected):
    assert sets_limit(options) is expected
