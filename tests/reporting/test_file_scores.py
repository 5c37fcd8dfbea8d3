"""`arkasr score --ref REF --hyp HYP`: transcripts of any systems, without an experiment."""

from __future__ import annotations

import json

import pytest

from arkasr.cli import main
from arkasr.reporting import file_scores

REFERENCES = {"a-1": "THE CAT SAT", "a-2": "A DOG", "b-1": "HELLO THERE, YOU", "b-2": ""}
FIRST = {"a-1": "the cat sat", "a-2": "a frog", "b-1": "hello you", "b-2": "thank you"}
SECOND = {**REFERENCES, "a-2": "a"}


def kaldi(path, texts):
    path.write_text("".join(f"{identity} {text}\n" for identity, text in texts.items()))
    return str(path)


@pytest.fixture
def files(tmp_path):
    found = {"text": REFERENCES, "first.txt": FIRST, "second.txt": SECOND}
    found["utt2spk"] = {identity: identity[0] for identity in REFERENCES}
    return {name.removesuffix(".txt"): kaldi(tmp_path / name, texts) for name, texts in found.items()}


def as_json(capsys, *words):
    assert main(["score", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def failing(capsys, *words):
    assert main(["score", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def test_systems_are_scored_and_compared(files, capsys):
    names = "--ref", files["text"], "--hyp", files["first"], f"better={files['second']}"
    found = as_json(capsys, *names, "--format", "kaldi", "--utt2spk", files["utt2spk"])
    first, second = found["systems"]["first"], found["systems"]["better"]
    counts = [first[key] for key in ("hits", "substitutions", "deletions", "insertions", "reference_length")]
    assert counts == [6, 1, 1, 2, 8] and first["rate_percent"] == 50 and second["rate_percent"] == 12.5
    assert (first["utterance_error_percent"], first["speakers"]) == (75, 2)
    assert first["interval_by_speaker_percent"] == [20, 100]  # 1 of 5 words of speaker a, 3 of 3 of speaker b
    assert first["hallucination"]["words"] == 2 and second["hallucination"]["words"] == 0
    assert [row["label"] for row in first["breakdown"]["speaker"]] == ["a", "b"]
    (change,) = found["comparisons"]
    assert (change["system"], change["from"], change["difference_percent"]) == ("better", "first", -37.5)
    assert 0 < change["p_matched_pairs"] <= 1 and 0 < change["p_bootstrap"] <= 1
    assert found["profile"]["name"] == "unicode" and found["metric"] == "wer"


def test_table_fits_a_terminal_and_shows_what_json_holds(files, capsys):
    names = "--ref", files["text"], "--hyp", files["first"], files["second"], "--format", "kaldi"
    assert main(["score", *names, "--utt2spk", files["utt2spk"]]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[1:])) <= 80
    rows = [line.split() for line in out.splitlines()]
    assert ["first", "50.00"] in [row[:2] for row in rows]
    assert ["first", "12.50", "12.50", "25.00", "0", "0", "-", "0"] in rows
    assert ["second", "-", "first", "-37.50"] in [row[:4] for row in rows]
    assert "Few speakers (2)" in out and "empty references" in out


def test_missing_utterances_count_as_deletions_and_are_named(files, tmp_path, capsys):
    less = kaldi(tmp_path / "less.txt", {"a-1": "the cat sat"})
    names = "--ref", files["text"], "--hyp", less, "--format", "kaldi"
    entry = as_json(capsys, *names)["systems"]["less"]
    assert (entry["deletions"], entry["missing_hypotheses"], entry["empty_hypotheses"]) == (5, 3, 0)
    assert entry["warnings"] == [
        "3 of 4 utterances have no hypothesis, such as a-2, b-1, b-2; their words count as deletions"
    ]
    assert main(["score", *names]) == 0 and "! less: 3 of 4 utterances have no" in capsys.readouterr().out


def test_looping_empty_and_cut_transcripts_are_counted(tmp_path, capsys):
    rows = [("a", "yes " * 13, False), ("b", "...", True), ("c", "no", True)]
    lines = [
        json.dumps({"id": i, "reference": "yes", "hypothesis": text, "stopped": stopped, "seconds": 3.0})
        for i, text, stopped in rows
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(lines))
    entry = as_json(capsys, "--ref", str(path), "--hyp", str(path))["systems"]["test"]
    assert (entry["looping"], entry["empty_hypotheses"], entry["not_stopped"]) == (1, 1, 1)
    assert [row["label"] for row in entry["breakdown"]["duration"]] == ["2 to 5 s"]


@pytest.mark.parametrize(
    ("language", "profile", "metric", "errors", "length"),
    [
        ("Chinese", "", "cer", 3, 6),
        ("zh", "wenet", "mer", 1, 4),
        ("Chinese", "unicode-cer", "cer", 3, 6),
        ("", "wenet", "mer", 1, 4),
    ],
)
def test_language_and_profile_choose_the_units(tmp_path, capsys, language, profile, metric, errors, length):
    for name, text in (("ref", "打开APP了"), ("hyp", "打开了")):
        (tmp_path / f"{name}.txt").write_text(text)
    words = ["--ref", str(tmp_path / "ref.txt"), "--hyp", str(tmp_path / "hyp.txt")]
    words += ["--language", language] if language else []
    found = as_json(capsys, *words, *(["--profile", profile] if profile else []))
    entry = found["systems"]["hyp"]
    assert (found["metric"], entry["errors"], entry["reference_length"]) == (metric, errors, length)


def test_a_profile_of_one_language_needs_no_language(files, capsys):
    words = "--ref", files["text"], "--hyp", files["first"], "--format", "kaldi"
    found = as_json(capsys, *words, "--profile", "leaderboard-2026-08")
    assert found["language"] == "English" and set(found["profile"]["packages"]) == {"whisper-normalizer", "kaldialign"}


def test_a_script_without_spaces_needs_a_language(tmp_path, capsys):
    (tmp_path / "ref.txt").write_text("hello\n今天\n")
    names = "--ref", str(tmp_path / "ref.txt"), "--hyp", str(tmp_path / "ref.txt")
    assert "utterance 2 has letters of a script without spaces" in failing(capsys, *names)


def test_systems_of_one_file_name_are_named_by_path(files, tmp_path, capsys):
    (tmp_path / "b").mkdir()
    other = kaldi(tmp_path / "b" / "first.txt", FIRST)
    found = as_json(capsys, "--ref", files["text"], "--hyp", files["first"], other, "--format", "kaldi")
    assert list(found["systems"]) == [files["first"], other]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ref", "{text}"], "--hyp is missing"),
        (["--hyp", "{text}"], "--ref is missing"),
        (["--ref", "{text}", "--hyp", "a={first}", "a={second}"], "--hyp a: names two systems"),
        (["--ref", "{text}", "--hyp", "{text}", "--expdir", "x"], "--expdir belongs to an experiment"),
        (["--ref", "{text}", "--hyp", "{text}", "--profile", "wer"], "profile 'wer': is unknown"),
        (["--ref", "{text}", "--hyp", "{text}", "--language", "Elvish"], "'Elvish': is not a language"),
        (["--ref", "{text}", "--hyp", "{text}", "--profile", "zh_tn", "--language", "en"], "no rules for English"),
        (["--ref", "{text}", "--hyp", "{first}"], "begins with an id, such as a-1"),
        (["--ref", "{text}", "--hyp", "{text}", "--utt2spk", "{short}"], "short: has no speaker for 3 of 4"),
        (["--ref", "{silent}", "--hyp", "{text}", "--format", "kaldi"], "no reference has a word"),
        (["--ref", "{text}", "--hyp", "{unknown}", "--format", "kaldi"], "1 of 2 utterances are not in"),
        (["--ref", "{doubled}", "--hyp", "{text}", "--format", "kaldi"], "line 2: repeats utterance 'a-1'"),
        (["--expdir", "x", "--datadir", "y", "--json"], "--json is for files of transcripts"),
        (["--expdir", "x"], "--expdir or --datadir is missing"),
    ],
)
def test_bad_input_is_one_sentence(files, tmp_path, capsys, words, message):
    files |= {
        "short": kaldi(tmp_path / "short", {"a-1": "s", "a-2": ""}),
        "silent": kaldi(tmp_path / "silent", {"a-1": "...", "a-2": ""}),
        "unknown": kaldi(tmp_path / "unknown", {"a-1": "x", "z-9": "y"}),
        "doubled": kaldi(tmp_path / "doubled", {"a-1": "x"}),
    }
    (tmp_path / "doubled").write_text("a-1 x\na-1 y\n")
    error = failing(capsys, *(word.format(**files) for word in words))
    assert message in error and error.count("\n") == 1


def test_terminal_escapes_of_transcripts_are_not_printed(tmp_path, capsys):
    (tmp_path / "ref.txt").write_text("a b\n" * 25)
    (tmp_path / "hyp.txt").write_text("\x1b[31mred\n" * 25)
    assert main(["score", "--ref", str(tmp_path / "ref.txt"), "--hyp", str(tmp_path / "hyp.txt")]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_scripts_without_spaces_are_those_of_the_languages():
    for text in "今日は", "ภาษา", "ລາວ", "བོད", "မြန်", "ខ្មែរ":
        assert file_scores.WITHOUT_SPACES.search(text)
    for text in "hello", "привет", "한국어", "हिन्दी", "عربي":
        assert not file_scores.WITHOUT_SPACES.search(text)


def test_hotwords_are_scored(files, tmp_path, capsys):
    hotwords = tmp_path / "hotwords.txt"
    hotwords.write_text("Frog\nThere\nthe cat\n")
    names = "--ref", files["text"], "--hyp", files["first"], files["second"], "--format", "kaldi"
    found = as_json(capsys, *names, "--hotwords", str(hotwords))["systems"]
    first, second = (found[name]["hotwords"] for name in ("first", "second"))
    assert [first[key] for key in ("spoken", "found", "recall_percent", "leak_percent")] == [2, 1, 50, 25]
    assert [second[key] for key in ("spoken", "found", "recall_percent", "leak_percent")] == [2, 2, 100, 0]
    assert first["most_leaked"] == {"frog": 1} and first["most_missed"] == {"there": 1}
    assert main(["score", *names, "--hotwords", f"@{hotwords}"]) == 0
    out = capsys.readouterr().out
    assert ["first", "2", "50.00"] in [line.split()[:3] for line in out.splitlines()]
    assert "first: added hotwords: frog (1). Missed: there (1)." in out and max(map(len, out.splitlines()[1:])) <= 80
    assert as_json(capsys, *names)["systems"]["first"]["hotwords"] is None


def test_hotword_without_a_letter_is_an_error(files, tmp_path, capsys):
    (tmp_path / "hotwords.txt").write_text("frog\n--\n")
    names = "--ref", files["text"], "--hyp", files["first"], "--format", "kaldi"
    assert "nothing is left of hotword '--'" in failing(capsys, *names, "--hotwords", str(tmp_path / "hotwords.txt"))
    assert main(["score", "--expdir", "e", "--datadir", "d", "--hotwords", "x"]) == 2
    assert "--hotwords is for files of transcripts" in capsys.readouterr().err
