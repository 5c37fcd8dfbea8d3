"""The record beside hypotheses: what counts as changed, and damaged records."""

from __future__ import annotations

import json

import pytest

from arkasr.data.reasons import Failure
from arkasr.errors import UserError
from arkasr.evaluation.decode_record import changed_inputs, read_record, write_record

TEACHER = {"name": "qwen3_asr", "options": {}, "path": "t", "weights": "w"}
RUN = {
    "manifest": "m",
    "weights": "w",
    "teacher": None,
    "settings": {"max_new_tokens": 40, "tokens_per_second": 50.0, "max_seconds": 160.0},
    "clips": 3,
}
IN_BFLOAT16 = RUN | {"settings": RUN["settings"] | {"dtype": "bfloat16"}}
OF_TEACHER = RUN | {"weights": "", "teacher": TEACHER, "settings": {}}


@pytest.mark.parametrize(
    ("old", "change", "changed"),
    [
        (RUN, {}, []),
        (RUN, {"manifest": "n"}, ["clips or texts of test.jsonl.gz"]),
        (RUN, {"weights": "v"}, ["weights in base/final"]),
        (RUN, {"weights": ""}, []),  # deleted after decoding
        (RUN, {"settings": RUN["settings"] | {"max_new_tokens": 64}}, ["decode.max_new_tokens (40, now 64)"]),
        (RUN, {"settings": RUN["settings"] | {"max_seconds": 20.0}}, []),
        (RUN, {"settings": RUN["settings"] | {"new_key": 1}}, []),  # of a newer version
        (RUN, {"settings": RUN["settings"] | {"agreement_clips": 9}}, []),
        (RUN, {"settings": RUN["settings"] | {"dtype": "float32"}}, []),  # the only one of older versions
        (RUN, {"settings": RUN["settings"] | {"dtype": "bfloat16"}}, ["decode.dtype (float32, now bfloat16)"]),
        (IN_BFLOAT16, {"settings": RUN["settings"] | {"dtype": "auto"}}, []),
        (IN_BFLOAT16, {"settings": RUN["settings"] | {"dtype": "float32"}}, ["decode.dtype (bfloat16, now float32)"]),
        (OF_TEACHER, {"teacher": TEACHER | {"weights": "v"}}, ["weights in teacher.options.path"]),
        (OF_TEACHER, {"teacher": TEACHER | {"options": {"max_new_tokens": 9}}}, ["teacher.options.max_new_tokens"]),
        (OF_TEACHER, {"teacher": TEACHER | {"path": "moved"}}, []),
    ],
)
def test_changed_inputs_names_what_changed(old, change, changed):
    assert changed_inputs(old, old | change, "test.jsonl.gz", "base/final") == changed


def test_record_is_complete_only_with_failures(tmp_path):
    path = tmp_path / "test.jsonl"
    assert read_record(path) is None
    write_record(path, RUN)
    assert read_record(path) == RUN
    write_record(path, RUN, [Failure(f"c{i}", "c.wav", "missing audio file") for i in range(9)])
    record = read_record(path)
    assert record["failed"] == 9 and len(record["failed_examples"]) == 5
    assert record["failed_examples"][0] == "c0 (c.wav): missing audio file"
    assert "agreement" not in record
    write_record(path, RUN, [], {"clips": 2, "equal": 1, "error": None})
    assert read_record(path)["agreement"] == {"clips": 2, "equal": 1, "error": None}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        json.dumps(RUN | {"settings": 3}).encode(),
        json.dumps(RUN | {"teacher": {"name": "x"}}).encode(),
        json.dumps(RUN | {"agreement": {"clips": 3}}).encode(),
    ],
)
def test_damaged_record_gives_one_sentence(tmp_path, content):
    path = tmp_path / "test.jsonl"
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(UserError, match=r"test.json.*; delete it and test.jsonl\*, and decode again with --stage 4"):
        read_record(path)
