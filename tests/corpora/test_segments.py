"""Odd fields of WenetSpeech.json: each drops its segment or recording with a reason, and nothing else."""

from __future__ import annotations

import json
from itertools import product

import pytest
from corpora_on_disk import CASES, case, cuts, dropped, edit_json, run, wenetspeech

from arkasr.corpora.layouts.segments import audio_fault, homes, number, segment_fault, subsets
from arkasr.errors import UserError

AUDIO = {"aid": "Y1", "path": "a.opus", "duration": 4.0, "segments": []}
SEGMENT = {"sid": "Y1_S1", "begin_time": 0.0, "end_time": 1.0, "subsets": ["L"], "text": "喝水"}
ODD = [
    None,
    True,
    7,
    10**400,
    -1,
    float("nan"),
    float("inf"),
    "",
    "n/a",
    "1.5",
    [],
    [1],
    {},
    {"a": 1},
    "a\0b",
    "\ud800",
]
REMOVED = object()


def change(item: dict, key: str, value: object) -> dict:
    changed = {**item, key: value}
    return {name: each for name, each in changed.items() if each is not REMOVED}


@pytest.mark.parametrize(
    "value, expected", [(1, 1.0), (-2.5, -2.5), (True, None), ("1", None), (None, None), ([], None)]
)
def test_number_accepts_numbers_only(value, expected):
    assert number(value) == expected


def test_number_refuses_what_no_float_holds():
    assert [number(value) for value in (float("nan"), float("-inf"), 10**400)] == [None] * 3


@pytest.mark.parametrize(
    "key, allowed",
    [("aid", []), ("path", ["n/a", "1.5", "\ud800"]), ("duration", [7]), ("segments", [[], [1]])],
)
def test_audio_fault_names_the_odd_field(key, allowed):
    assert audio_fault(AUDIO) == "" and "not a JSON object" in audio_fault(None)
    for value in (value for value in [*ODD, REMOVED] if value not in allowed):
        fault = audio_fault(change(AUDIO, key, value))
        assert fault == "id is not allowed" or f"field {key}" in fault or "missing" in fault or value in ("1.5",), value


@pytest.mark.parametrize("key", SEGMENT)
def test_segment_fault_names_the_odd_field(key):
    assert segment_fault(SEGMENT) == "" and "not a JSON object" in segment_fault([])
    for value in (None, True, [1], {}, REMOVED):
        assert f"field {key}" in (fault := segment_fault(change(SEGMENT, key, value))) or "missing" in fault


def test_homes_counts_segments_without_names_with_the_first_part():
    assert homes(SEGMENT, ["L", "DEV"]) == ["L"] and homes(SEGMENT, ["DEV"]) == []
    assert homes({**SEGMENT, "subsets": ["DEV", None]}, ["L", "DEV"]) == ["DEV"]
    for odd in (None, "L", {"L": 1}, [None], REMOVED):
        assert homes(change(SEGMENT, "subsets", odd), ["L", "DEV"]) == ["L"]
    assert homes(None, ["L"]) == ["L"] and subsets({"subsets": ["L", "L", ""]}) == ["L"]


@pytest.mark.slow
def test_prepare_counts_every_segment_with_an_odd_field(tmp_path):
    root = wenetspeech(tmp_path / "c")
    odd = [*product(SEGMENT, [*ODD, REMOVED])]

    def damage(audios: list[dict]) -> None:
        template = audios[0]["segments"][0]
        changed = [change({**template, "sid": f"odd{i}"}, *each) for i, each in enumerate(odd)]
        audios[0]["segments"] += [*changed, None, "text", 7, []]

    edit_json(root, damage)
    facts = run("wenetspeech", root, tmp_path / "data")
    train = facts["sets"]["train"]
    # An empty list of subsets is valid: the segment belongs to nothing.
    nowhere = sum(key == "subsets" and value == [] for key, value in odd)
    assert train["cuts"] + sum(train["dropped"].values()) == 3 + len(odd) + 4 - nowhere
    kept = {cut.id for cut in cuts(tmp_path / "data", "train")}
    # Texts and ids that look odd, but can be used.
    usable = {("text", "n/a"), ("text", "1.5"), ("sid", "1.5")}
    ids = {f"odd{i}" if key != "sid" else value for i, (key, value) in enumerate(odd) if (key, str(value)) in usable}
    assert kept == {*(f"YL_S{i:05d}" for i in range(3)), *ids}
    assert {facts["sets"][name]["cuts"] for name in ("dev", "test-net", "test-meeting")} == {3}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["aid", "path", "duration", "segments"])
def test_prepare_counts_every_recording_with_an_odd_field(tmp_path, key):
    root = wenetspeech(tmp_path / "c")

    def damage(audios: list[dict]) -> None:
        good = audios[0]
        for i, value in enumerate([*ODD, REMOVED]):
            segments = [{**segment, "sid": f"odd{i}_{segment['sid']}"} for segment in good["segments"]]
            audios.append(change({**good, "aid": f"Yodd{i}", "segments": segments}, key, value))
        audios += [None, "text", 7, []]

    edit_json(root, damage)
    train = run("wenetspeech", root, tmp_path / "data")["sets"]["train"]
    recordings = len(ODD) + 1
    expected = {
        # Odd ids: "n/a" has a slash. "1.5" is an id like any other.
        "aid": (6, 3 * (recordings - 1) + 4),
        "path": (3, 3 * recordings + 4),
        # 7 is a duration, though not the file's.
        "duration": (6, 3 * (recordings - 1) + 4),
        # One count for each recording without a list. [] has no segments, and the one of [1] is counted.
        "segments": (3, recordings - 1 + 4),
    }[key]
    assert (train["cuts"], sum(train["dropped"].values())) == expected


@pytest.mark.slow
def test_second_recording_of_an_id_is_dropped(tmp_path):
    root = wenetspeech(tmp_path / "c")
    again = [{"sid": "again", "begin_time": 0.0, "end_time": 1.0, "subsets": ["L"], "text": "喝水"}]
    edit_json(root, lambda audios: audios.append({**audios[0], "segments": again}))
    run("wenetspeech", root, tmp_path / "data")
    assert dropped(tmp_path / "data") == [("train", "again", "repeated id of a recording")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["", "[", "[]", "{}", '{"audios": {}}', '{"audios": null}', '{"audios": []', "\0", "[" * 100_000, '{"a": "\xff'],
)
def test_json_without_a_list_of_recordings_is_one_sentence(tmp_path, text):
    root = wenetspeech(tmp_path / "c")
    (root / "WenetSpeech.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"WenetSpeech.json: (not JSON|.audios. must be|must be UTF-8)"):
        run("wenetspeech", root, tmp_path / "data")


@pytest.mark.slow
def test_json_with_a_byte_order_mark_is_read_and_utf_16_is_refused(tmp_path):
    root = wenetspeech(tmp_path / "c")
    path = root / "WenetSpeech.json"
    text = path.read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert run("wenetspeech", root, tmp_path / "data")["sets"]["train"]["cuts"] == 3
    path.write_text(text, encoding="utf-16")
    with pytest.raises(UserError, match="WenetSpeech.json: must be UTF-8 text"):
        run("wenetspeech", root, tmp_path / "data")


CASES_07 = {
    "badtime": (7, {"field begin_time is not a finite number": 1}),
    "dupaid": (4, {"repeated id of a recording": 4}),
    "neg": (7, {"begins before its recording": 1}),
    "numtext": (7, {"field text is not text": 1}),
    "pathnull": (4, {"field path is not a path": 4}),
    "segnull": (4, {"field segments is not a list": 1}),
    "textnull": (7, {"field text is not text": 1}),
}


@pytest.mark.slow
@pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases at {CASES}")
@pytest.mark.parametrize("name", CASES_07)
def test_case_07_drops_the_odd_field_with_its_reason(tmp_path, name):
    root = case(tmp_path / "c", "06-bom-wenetspeech")
    content = (CASES / "07-wenetspeech-fields" / f"{name}.json").read_bytes()
    assert isinstance(json.loads(content)["audios"], list)
    (root / "WenetSpeech.json").write_bytes(content)
    train = run("wenetspeech", root, tmp_path / "data")["sets"]["train"]
    assert (train["cuts"], train["dropped"]) == CASES_07[name]
