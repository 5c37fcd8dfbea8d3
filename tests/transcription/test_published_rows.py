from __future__ import annotations

import pytest

from arkasr.transcription.published_rows import cleaned, filled
from arkasr.transcription.results import Failed, Transcription

ROW = {"audio": "a.wav", "text": "ref", "task": "asr", "begin_time": -1, "end_time": -1, "speaker": "s1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  hello   world ", "hello world"),
        (", . - hello, world.", "hello, world."),
        ("hello<|im_end|><|user|>again", "hello"),
        ("a<|assistant|>b<|im_end|>", "a"),
        ("<|start_content|>x<|text|> hello<|bicodec_semantic_12|> you<|im_end|>", "hello you"),
        ("", ""),
        ("...", ""),
        ("don't-stop!", "don't-stop!"),
    ],
)
def test_cleaned_follows_the_published_script(text, expected):
    assert cleaned(text) == expected


def test_filled_keeps_all_fields_and_their_order():
    result = Transcription("a.wav", "- hello", (), 1.0, "English", "m")
    row = filled(ROW, result)
    assert list(row) == [*ROW, "pred_text", "pred_text_raw"]
    assert row == {**ROW, "pred_text": "hello", "pred_text_raw": "- hello"}


def test_filled_replaces_what_an_earlier_model_has_written():
    row = filled(ROW | {"pred_text": "old", "pred_text_raw": "old", "error": "old"}, Failed("a.wav", "new reason"))
    assert row == {**ROW, "error": "new reason"}
