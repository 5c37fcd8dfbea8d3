"""The files that `score` reads and writes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest
from json_lines import write_lines

from arkasr.data.manifests import digest
from arkasr.errors import UserError
from arkasr.reporting.score import score
from arkasr.utils.files import sampled_digest

REFERENCES = {"u1": "THE CAT SAT", "u2": "A DOG", "u3": ""}
SOURCE = {"type": "file", "channels": [0], "source": "absent.wav"}


def cut(identity, text):
    recording = {"id": identity, "sources": [SOURCE], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
    part = {"id": identity, "recording_id": identity, "start": 0.0, "duration": 1.0, "channel": 0, "text": text}
    head = {"id": identity, "start": 0.0, "duration": 1.0, "channel": 0, "type": "MonoCut"}
    return {**head, "recording": recording, "supervisions": [part]}


def hypothesis(identity, text, **more):
    fixed = {"reference": REFERENCES.get(identity, ""), "seconds": 1.0, "num_tokens": 3}
    fixed |= {"stopped": True, "looping": False}
    return {"id": identity, "hypothesis": text, **fixed, **more}


@pytest.fixture
def workspace(tmp_path):
    """A data folder with one test set of three utterances, and the decoded run "base"."""
    data, exp = tmp_path / "data", tmp_path / "exp"
    data.mkdir()
    corpus = {"name": "toy", "language": "English", "profiles": ["unicode"], "scale": "mini", "test_sets": ["test"]}
    (data / "corpus.json").write_text(json.dumps(corpus))
    with gzip.open(data / "test.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(cut(identity, text)) + "\n" for identity, text in REFERENCES.items())
    rows = [hypothesis("u1", "the cat sat"), hypothesis("u2", "a frog", stopped=False, looping=True)]
    rows += [hypothesis("u3", "thank you")]
    write_lines(exp / "base" / "decode" / "test.jsonl", rows)
    return exp, data


def scores_of(exp, run="base"):
    return json.loads((exp / run / "scores.json").read_text())


def test_score_writes_scores_results_and_figures(workspace, capsys, monkeypatch):
    exp, _ = workspace
    monkeypatch.chdir(exp.parent)
    score("exp", "data", ["base"])
    content = scores_of(exp)
    got = content["sets"]["test"]
    assert got["profile"] == {"name": "unicode", "version": "1", "packages": {}} and content["jiwer"].count(".") == 2
    assert (got["reference_length"], got["errors"], got["insertions"], got["not_stopped"]) == (5, 3, 2, 1)
    assert got["looping"] == 1
    assert got["rate_percent"] == pytest.approx(60) and got["missing_hypotheses"] == 0
    out = capsys.readouterr().out
    assert out.rstrip().endswith("Figure:  exp/figures/error_rates.png") and "Results: exp/RESULTS.md" in out
    table = out[out.index("Table 1") :].splitlines()
    assert max(map(len, table)) <= 80
    assert table[3].split()[:4] == ["test", "Base", "60.00", "!"]
    assert table[5] == "! Base, test: 1 of 3 transcripts (33.3 %) are cut at the token cap."
    assert (exp / "RESULTS.md").read_text().startswith("# Results: toy, miniature")


def test_score_counts_missing_hypothesis_as_deletions_and_empty_hypotheses_separately(workspace, capsys):
    exp, data = workspace
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("u2", "..."), hypothesis("u3", "")])
    score(str(exp), str(data), ["base"])
    got = scores_of(exp)["sets"]["test"]
    assert (got["deletions"], got["missing_hypotheses"], got["empty_hypotheses"]) == (5, 1, 2)
    reason = "1 of 3 clips not decoded: no hypothesis in the file (first: u1); their words count as deletions"
    assert f"warning: Base, test: {reason}" in capsys.readouterr().out
    assert f"- Base, test: {reason}." in (exp / "RESULTS.md").read_text()


def test_score_reports_not_stopped_as_unknown_if_decoder_does_not_report_it(workspace):
    exp, data = workspace
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("u1", "the cat sat", stopped=None)])
    score(str(exp), str(data), ["base"])
    assert scores_of(exp)["sets"]["test"]["not_stopped"] is None
    assert (
        "| Base | test | 3 | 2 (66.7 %) | 0 | - | 0 | 1 (100.0 %) | 1 (100.0 %) |" in (exp / "RESULTS.md").read_text()
    )


def test_score_accepts_hypotheses_without_looping_key(workspace):
    exp, data = workspace
    row = hypothesis("u1", "the cat sat")
    del row["looping"]
    write_lines(exp / "base" / "decode" / "test.jsonl", [row])
    score(str(exp), str(data), ["base"])
    got = scores_of(exp)["sets"]["test"]
    assert got["looping"] is None and got["not_stopped"] == 0


def test_score_compares_runs_with_base(workspace):
    exp, data = workspace
    write_lines(exp / "base_opd" / "decode" / "test.jsonl", [hypothesis(i, t) for i, t in REFERENCES.items()])
    score(str(exp), str(data), ["base", "base_opd"])
    assert scores_of(exp, "base_opd")["sets"]["test"]["against_base"]["relative_percent"] == -100
    assert "against_base" not in scores_of(exp)["sets"]["test"]


def test_score_counts_characters_of_mandarin_corpus(workspace):
    exp, data = workspace
    corpus = json.loads((data / "corpus.json").read_text()) | {"language": "Chinese"}
    (data / "corpus.json").write_text(json.dumps(corpus))
    score(str(exp), str(data), ["base"])
    assert scores_of(exp)["sets"]["test"]["reference_length"] == len("thecatsat" + "adog")


def break_ids(exp, data):
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("v9", "x")])


def break_text(exp, data):
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("u1", "x", reference="other words")])


def break_line(exp, data):
    (exp / "base" / "decode" / "test.jsonl").write_text('{"id": "u1", "hyp')


def break_twice(exp, data):
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("u1", "x")] * 2)


def break_key(exp, data):
    write_lines(exp / "base" / "decode" / "test.jsonl", [{"id": "u1", "stopped": True}])


def break_decode(exp, data):
    (exp / "base" / "decode" / "test.jsonl").unlink()


def break_references(exp, data):
    (data / "test.jsonl.gz").unlink()


def break_gzip(exp, data):
    (data / "test.jsonl.gz").write_bytes((data / "test.jsonl.gz").read_bytes()[:40])


def break_empty_set(exp, data):
    gzip.open(data / "test.jsonl.gz", "wt").close()


def break_corpus(exp, data):
    (data / "corpus.json").unlink()


def corpus_of(data, **facts):
    (data / "corpus.json").write_text(json.dumps({"name": "x", "test_sets": ["test"]} | facts))


def break_metric(exp, data):
    corpus_of(data, metric="mer", normalizer="raw")


def break_normalizer(exp, data):
    corpus_of(data, metric="wer", normalizer="oral")


def break_profiles(exp, data):
    corpus_of(data, profiles=[])


def break_profile(exp, data):
    corpus_of(data, profiles=["unicode", "wenett"])


def break_language(exp, data):
    corpus_of(data, profiles=["zh_tn"], language="German")


def break_unknown_language(exp, data):
    corpus_of(data, profiles=["unicode"], language="Klingon")


def break_sets(exp, data):
    corpus_of(data, profiles=["raw"], test_sets=[])


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (break_ids, ["base/decode/test.jsonl: decoded from other data", "v9", "test.jsonl.gz"]),
        (break_text, ["base/decode/test.jsonl: decoded from other data", "u1", "data/test.jsonl.gz"]),
        (break_line, ["test.jsonl, line 1", "--stage 4"]),
        (break_twice, ["line 2", "duplicate id u1"]),
        (break_key, ["line 1: key 'hypothesis' is missing"]),
        (break_decode, ["base/decode/test.jsonl: no such file", "--stage 4"]),
        (break_references, ["test.jsonl.gz: no such file", "--stage 1"]),
        (break_gzip, ["test.jsonl.gz: the file is truncated"]),
        (break_empty_set, ["test.jsonl.gz: holds no cuts"]),
        (break_corpus, ["corpus.json: no such file", "--stage 1"]),
        (break_metric, ["corpus.json: no scoring profile has the metric 'mer' with the normaliser 'raw'", "--stage"]),
        (break_normalizer, ["corpus.json", "'oral'", "set `profiles` in corpus.yaml"]),
        (break_profiles, ["corpus.json: key 'profiles' is missing", "--stage 1"]),
        (break_profile, ["corpus.json: scoring profile 'wenett': is unknown (did you mean wenet?); use one"]),
        (break_language, ["corpus.json: scoring profile zh_tn: has no rules for German; it is for Chinese"]),
        (break_unknown_language, ["corpus.json: scoring profile unicode: language 'Klingon': is not a language"]),
        (break_sets, ["data: has no test set", "--test_sets"]),
    ],
)
def test_score_rejects_broken_input_and_names_it(workspace, damage, parts):
    exp, data = workspace
    damage(exp, data)
    with pytest.raises(UserError) as caught:
        score(str(exp), str(data), ["base"])
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not (exp / "RESULTS.md").exists()


def test_score_rejects_empty_runs(workspace):
    with pytest.raises(UserError, match="--runs"):
        score(str(workspace[0]), str(workspace[1]), [])


# What was not measured, or is doubtful


def add_set(exp, data, name, references, rows):
    """Add another test set with its hypotheses of base."""
    corpus = json.loads((data / "corpus.json").read_text())
    (data / "corpus.json").write_text(json.dumps(corpus | {"test_sets": [*corpus["test_sets"], name]}))
    with gzip.open(data / f"{name}.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(cut(identity, text)) + "\n" for identity, text in references.items())
    write_lines(exp / "base" / "decode" / f"{name}.jsonl", rows)


def write_record(exp, data, run="base", **changes):
    known = {"manifest": digest(str(data / "test.jsonl.gz")), "weights": "", "teacher": None, "settings": {}}
    path = exp / run / "decode" / "test.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known | {"clips": 3, "failed": 0, "failed_examples": []} | changes))


def test_score_shows_the_agreement_with_float32(workspace):
    exp, data = workspace
    assert "Equal in float32" not in scored_report(exp, data)
    write_record(exp, data, agreement={"clips": 2, "equal": 1, "error": 0.5})
    text = scored_report(exp, data)
    assert "Equal in float32: a sample" in text and " | 1 of 2 |" in text
    assert scores_of(exp)["sets"]["test"]["agreement"] == {"clips": 2, "equal": 1, "error": 0.5}


def scored_report(exp, data) -> str:
    score(str(exp), str(data), ["base"])
    return (exp / "RESULTS.md").read_text()


def test_score_gives_dash_to_set_without_hypotheses_and_scores_the_others(workspace, capsys):
    exp, data = workspace
    add_set(exp, data, "other", {"v1": "A B"}, [])
    score(str(exp), str(data), ["base"])
    got = scores_of(exp)["sets"]["other"]
    assert got["rate_percent"] is None and got["deletions"] is None and got["utterances"] == 1
    printed = capsys.readouterr().out
    assert (
        "warning: Base, other: 1 of 1 clips not decoded: no hypothesis in the file (first: v1); no error rate"
        in printed
    )
    assert "| Base | 60.00 [" in (exp / "RESULTS.md").read_text() and " | - (!) |" in (exp / "RESULTS.md").read_text()


def test_score_gives_no_rate_without_reference_words(workspace):
    exp, data = workspace
    add_set(exp, data, "silence", {"v1": "", "v2": "..."}, [hypothesis("v1", ""), hypothesis("v2", "hello")])
    write_lines(exp / "base_opd" / "decode" / "test.jsonl", [hypothesis(i, t) for i, t in REFERENCES.items()])
    rows = [hypothesis("v1", ""), hypothesis("v2", "")]
    write_lines(exp / "base_opd" / "decode" / "silence.jsonl", rows)
    score(str(exp), str(data), ["base", "base_opd"])
    got = scores_of(exp)["sets"]["silence"]
    assert got["rate_percent"] is None and got["insertions"] == 1 and got["empty_references"] == 2
    assert scores_of(exp, "base_opd")["sets"]["silence"]["against_base"]["difference_percent"] is None


@pytest.mark.parametrize("rows", [[], [hypothesis("u3", "word")]])
def test_score_refuses_if_nothing_was_scored(workspace, rows):
    exp, data = workspace
    with gzip.open(data / "test.jsonl.gz", "wt") as file:
        file.write(json.dumps(cut("u3", "")) + "\n")
    write_lines(exp / "base" / "decode" / "test.jsonl", rows)
    with pytest.raises(UserError, match="nothing was scored, because no (clip was decoded|reference .* has a word)"):
        score(str(exp), str(data), ["base"])
    assert not (exp / "RESULTS.md").exists() and not (exp / "base" / "scores.json").exists()


def test_score_shows_recorded_reason_of_clips_that_were_not_decoded(workspace, capsys):
    exp, data = workspace
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("u1", "the cat sat"), hypothesis("u3", "")])
    write_record(exp, data, failed=1, failed_examples=["u2 (u2.wav): unreadable audio; put it back; see the docs"])
    score(str(exp), str(data), ["base"])
    line = "Base, test: 1 of 3 clips not decoded: u2 (u2.wav): unreadable audio; their words count as deletions"
    assert line in capsys.readouterr().out and line in (exp / "RESULTS.md").read_text()
    got = scores_of(exp)["sets"]["test"]
    assert (got["missing_hypotheses"], got["failed_clips"], got["deletions"]) == (1, 1, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": 4}, "test.jsonl: incomplete: it holds 3 hypotheses of 4 clips"),
        ({"failed": 1}, "test.jsonl: incomplete"),
        ({"failed": None}, "test.jsonl: decoding did not finish"),
        ({"weights": "00ff"}, "test.jsonl: decoded with other weights than .*base/final holds now; run --stage 4"),
        ({"clips": "3"}, "test.json: key 'clips' must be a whole number"),
    ],
)
def test_score_refuses_incomplete_hypotheses_and_those_of_other_weights(workspace, changes, message):
    exp, data = workspace
    (exp / "base" / "final").mkdir()
    (exp / "base" / "final" / "model.safetensors").write_bytes(b"weights")
    write_record(exp, data, **changes)
    with pytest.raises(UserError, match=message):
        score(str(exp), str(data), ["base"])
    assert not (exp / "RESULTS.md").exists()


def test_score_refuses_rows_of_a_teacher_whose_weights_changed(workspace, tmp_path):
    exp, data = workspace
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"new")
    teacher = {"name": "qwen3_asr", "options": {}, "path": str(tmp_path / "model"), "weights": "old"}
    (exp / "base").rename(exp / "teacher")
    write_record(exp, data, "teacher", teacher=teacher)
    with pytest.raises(UserError, match="decoded with another teacher than .*model holds now"):
        score(str(exp), str(data), ["teacher"])


def test_score_accepts_matching_record_without_warning(workspace, capsys):
    exp, data = workspace
    rows = [hypothesis(identity, text) for identity, text in REFERENCES.items()]
    write_lines(exp / "base" / "decode" / "test.jsonl", rows)
    write_record(exp, data)
    score(str(exp), str(data), ["base"])
    assert "warning" not in capsys.readouterr().out
    assert "Warnings" not in (exp / "RESULTS.md").read_text() and "(!)" not in (exp / "RESULTS.md").read_text()


def test_score_warns_if_manifest_or_settings_changed_after_decoding(workspace, capsys):
    exp, data = workspace
    (exp / "base" / "config.yaml").write_text("decode:\n  max_new_tokens: 256\n")
    write_record(exp, data, manifest="0" * 64, settings={"max_new_tokens": 40})
    score(str(exp), str(data), ["base"])
    changed = (
        f"changed since it was decoded: clips or texts of {data}/test.jsonl.gz, decode.max_new_tokens (40, now 256)"
    )
    assert changed in capsys.readouterr().out and changed in (exp / "RESULTS.md").read_text()


def test_score_warns_once_about_hypotheses_without_record(workspace, capsys):
    exp, data = workspace
    write_lines(exp / "base_opd" / "decode" / "test.jsonl", [hypothesis(i, t) for i, t in REFERENCES.items()])
    score(str(exp), str(data), ["base", "base_opd"])
    assert capsys.readouterr().out.count("base, base_opd: decoded by an older version") == 1
    assert "- Base, Base+OPD: decoded by an older version of arkasr" in (exp / "RESULTS.md").read_text()


def write_run(exp, run, record, config=None):
    (exp / run).mkdir(parents=True, exist_ok=True)
    (exp / run / "run.json").write_text(json.dumps(record))
    (exp / run / "config.yaml").write_text(json.dumps(config or {}))


def opd_run(exp, teacher, weights):
    """Write a distilled run with perfect hypotheses whose parent is base."""
    write_lines(exp / "base_opd" / "decode" / "test.jsonl", [hypothesis(i, t) for i, t in REFERENCES.items()])
    parent = {"path": str(exp / "base" / "final"), "weights": weights}
    write_run(exp, "base_opd", {"inputs": {"parent": parent, "teacher": teacher, "data": None}}, {"objective": "opd"})


def test_score_says_that_base_was_trained_again_after_a_run_started_from_it(workspace, capsys):
    exp, data = workspace
    (exp / "base" / "final").mkdir()
    (exp / "base" / "final" / "model.safetensors").write_bytes(b"first")
    opd_run(exp, None, sampled_digest(exp / "base" / "final"))
    score(str(exp), str(data), ["base", "base_opd"])
    assert "trained from other weights" not in capsys.readouterr().out
    (exp / "base" / "final" / "model.safetensors").write_bytes(b"again")
    score(str(exp), str(data), ["base", "base_opd"])
    line = f"Base+OPD: trained from other weights than {exp}/base/final holds now"
    assert line in capsys.readouterr().out and line in (exp / "RESULTS.md").read_text()
    assert "| Base+OPD | 0.00 [0.00, 0.00] (!) |" in (exp / "RESULTS.md").read_text()


TEACHER = {"name": "qwen3_asr", "options": {}, "path": "Qwen/Qwen3-ASR-1.7B", "weights": ""}


def test_score_names_the_teacher_of_the_row_and_runs_with_another_one(workspace, capsys):
    exp, data = workspace
    rows = [hypothesis(i, t, stopped=None, looping=None) for i, t in REFERENCES.items()]
    write_lines(exp / "teacher" / "decode" / "test.jsonl", rows)
    write_record(exp, data, "teacher", teacher=TEACHER)
    opd_run(exp, TEACHER | {"path": "Qwen/Qwen3-ASR-0.6B"}, "")
    score(str(exp), str(data), ["teacher", "base", "base_opd"])
    results = (exp / "RESULTS.md").read_text()
    assert "| Teacher (`qwen3_asr`, Qwen/Qwen3-ASR-1.7B) | 0.00" in results
    assert "- teacher (row Teacher): `qwen3_asr`, Qwen/Qwen3-ASR-1.7B" in results
    line = "Base+OPD: distilled from another teacher (`qwen3_asr`, Qwen/Qwen3-ASR-0.6B) than the row Teacher"
    printed = capsys.readouterr().out
    assert line in printed and line in results and "different: teacher.options.path" in results
    assert "Teacher: `qwen3_asr`, Qwen/Qwen3-ASR-1.7B" in printed
    assert "| Teacher (`qwen3_asr`, Qwen/Qwen3-ASR-1.7B) | test | 3 | 0 | 1 (33.3 %) | - | - |" in results
    opd_run(exp, TEACHER, "")
    score(str(exp), str(data), ["teacher", "base", "base_opd"])
    assert "another teacher" not in (exp / "RESULTS.md").read_text()


def test_score_gives_alarm_for_collapsed_run(workspace, capsys):
    exp, data = workspace
    texts = {f"v{i:03d}": f"sentence number {i}" for i in range(40)}
    rows = [hypothesis(i, t if i < "v006" else "thank you", reference=t) for i, t in texts.items()]
    add_set(exp, data, "long", texts, rows)
    score(str(exp), str(data), ["base"])
    got = scores_of(exp)["sets"]["long"]
    assert got["distinct_hypotheses"] == 7 and got["most_frequent_hypothesis"] == {"text": "thank you", "count": 34}
    line = 'Base, long: transcripts hardly depend on the audio: 34 of 40 transcripts are "thank you"'
    printed, results = capsys.readouterr().out, (exp / "RESULTS.md").read_text()
    assert line in printed and f"- {line}" in results
    assert "| Base | long | 40 | 0 | 0 | 0 | 0 | 7 (17.5 %) | 34 (85.0 %) |" in results
    assert " (!) |" in results


@pytest.mark.parametrize("address", ["http://user:hunter2@host:1", "http://host:1/?api_key=hunter2"])
def test_score_writes_no_passwords(workspace, address):
    exp, data = workspace
    teacher = TEACHER | {"options": {"url": address, "api_key": "hunter2"}, "path": ""}
    write_lines(exp / "teacher" / "decode" / "test.jsonl", [hypothesis(i, t) for i, t in REFERENCES.items()])
    write_record(exp, data, "teacher", teacher=teacher)
    opd_run(exp, teacher | {"name": "other"}, "")
    override = f"teacher.options.url={address}"
    command = f"arkasr train a.yaml '{override}' teacher.options.api_key=hunter2"
    write_run(exp, "base_opd", {"command": command, "recipe": f"run.sh --overrides '{override}'"}, {"objective": "opd"})
    score(str(exp), str(data), ["teacher", "base", "base_opd"])
    for path in exp.rglob("*"):
        if path.is_file() and "decode" not in path.parts and path.name not in ("run.json", "config.yaml"):
            assert b"hunter2" not in path.read_bytes(), path
    assert "arkasr train a.yaml" in (exp / "RESULTS.md").read_text()


def test_score_writes_half_characters_of_damaged_transcripts(workspace):
    exp, data = workspace
    corpus = json.loads((data / "corpus.json").read_text()) | {"profiles": ["raw"]}
    (data / "corpus.json").write_text(json.dumps(corpus))
    write_lines(exp / "base" / "decode" / "test.jsonl", [hypothesis("u1", "\ud800 \u0000")])
    score(str(exp), str(data), ["base"])
    assert scores_of(exp)["sets"]["test"]["most_frequent_hypothesis"]["count"] == 1


def test_score_refuses_while_another_process_scores(workspace):
    exp, data = workspace
    program = (
        "import sys, time; from pathlib import Path; from arkasr.utils.files import locked\n"
        "with locked(Path(sys.argv[1]), 'scoring'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(exp)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"{exp}: scoring, process {holder.pid} .* is using this folder"):
            score(str(exp), str(data), ["base"])
        holder.kill()
    score(str(exp), str(data), ["base"])


def test_score_names_missing_experiment(workspace):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        score(str(workspace[0] / "nowhere"), str(workspace[1]), ["base"])
    assert not (workspace[0] / "nowhere").exists()
