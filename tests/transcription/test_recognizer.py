from __future__ import annotations

import pytest
import torch
from tiny import student, teacher, waveform

from arkasr import Transcript, UserError, generate, is_looping, token_caps
from arkasr.evaluation.one_by_one import InvalidTranscriptsError
from arkasr.transcription.recognizer import MAX_NEW_TOKENS, TOKENS_PER_SECOND, Recognizer, place

CLIPS = [waveform(9000, 3), waveform(16000, 4)]
LANGUAGES = ["English", "Chinese"]


@torch.no_grad()
def reference_texts(lm):
    caps = token_caps(CLIPS, MAX_NEW_TOKENS, TOKENS_PER_SECOND)
    found = generate(lm, lm.embed_prompts(lm.encode_audio(CLIPS), LANGUAGES), caps)
    return [(lm.text(ids), stopped, is_looping(ids, lm.stop_ids)) for ids, stopped in zip(found.ids, found.stopped)]


def texts(recognizer):
    return [(str(text), text.stopped, text.looping) for text in recognizer.transcribe(CLIPS, LANGUAGES)]


@pytest.mark.parametrize("published", [False, True])
def test_a_folder_in_either_layout_transcribes_like_the_model(tmp_path, published):
    lm = student(3)
    lm.save(tmp_path, save_original_format=published)
    loaded = Recognizer.load(str(tmp_path))
    assert texts(loaded) == reference_texts(lm) and loaded.name == str(tmp_path)


@pytest.mark.parametrize(
    ("trained", "most", "wanted", "expected"),
    [
        (None, None, None, 28.0),
        (4.0, None, None, 5.0),
        (0.5, None, None, 1.0),
        (60.0, None, None, 28.0),
        (60.0, 20.0, None, 20.0),
        (4.0, None, 12.0, 12.0),
        (4.0, 10.0, 12.0, 10.0),
    ],
)
def test_windows_suit_the_training_unless_the_user_chooses(monkeypatch, trained, most, wanted, expected):
    lm = student(3)
    lm.set_generation(20, trained)
    monkeypatch.setattr(type(lm), "max_seconds", most)
    assert Recognizer("tiny", lm).window_seconds(wanted) == expected


def test_qwen3_asr_is_a_model_and_a_teacher_plugin(tmp_path):
    lm = teacher(5)
    lm.save(tmp_path)
    expected = reference_texts(lm)
    assert texts(Recognizer.load(str(tmp_path))) == expected
    plugin = Recognizer.load(teacher=f"qwen3_asr:{tmp_path}")
    assert plugin.lm is None and plugin.max_seconds is None
    for (found, *_), (text, *_) in zip(texts(plugin), expected):  # the plugin has a higher limit of tokens
        assert len(text) > 5 and found.startswith(text.rstrip("\ufffd"))


def test_a_teacher_gets_the_dtype_of_the_command(tmp_path):
    teacher(5).save(tmp_path)
    for dtype in ("float32", "bfloat16"):
        plugin = Recognizer.load(teacher=f"qwen3_asr:{tmp_path}", device="cpu", dtype=dtype)
        assert plugin._teacher.lm.head.dtype == getattr(torch, dtype)


def test_a_plugin_must_return_one_text_per_clip():
    class Forgetful:
        def transcribe(self, waveforms, languages):
            return ["one"]

    with pytest.raises(InvalidTranscriptsError, match="one text per clip"):
        Recognizer("forgetful", teacher=Forgetful()).transcribe(CLIPS, LANGUAGES)


def test_plain_strings_of_a_plugin_become_transcripts():
    class Plain:
        def transcribe(self, waveforms, languages):
            return list(languages)

    found = Recognizer("plain", teacher=Plain()).transcribe(CLIPS, LANGUAGES)
    assert found == LANGUAGES and all(isinstance(text, Transcript) and text.stopped is None for text in found)


@pytest.mark.parametrize(("model", "plugin"), [("", ""), ("a", "qwen3_asr:b")])
def test_exactly_one_model_is_named(model, plugin):
    with pytest.raises(UserError, match="exactly one must name a model"):
        Recognizer.load(model, plugin)


def test_unknown_plugins_and_folders_without_a_model_are_errors(tmp_path):
    with pytest.raises(UserError, match="qwen_asr"):
        Recognizer.load(teacher="qwen_asr:x")
    with pytest.raises(UserError, match=r"no config\.json in this folder"):
        Recognizer.load(str(tmp_path))


def test_place_chooses_and_checks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert place() == ("cpu", "float32") and place("cpu", "bfloat16") == ("cpu", "bfloat16")
    for device in ("tpu9", "cuda:99"):
        with pytest.raises(UserError, match=f"--device {device}: cannot be used"):
            place(device)
    with pytest.raises(UserError, match="--dtype int8: is not a data type"):
        place("cpu", "int8")
