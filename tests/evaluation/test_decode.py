"""Hypotheses of runs and of the teacher, with resumed decoding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from corpus_fixture import clips
from lhotse import CutSet

from arkasr.cli import main
from arkasr.config.load import dump_config, load_config, read_config
from arkasr.evaluation import decode as decode_module
from arkasr.evaluation.decode import decode
from arkasr.evaluation.hypotheses import transcribe
from arkasr.model.loading import load_speech_lm

SIZES = {"test-a": 5, "test-b": 3}


@pytest.fixture
def expdir(trained, tmp_path):
    """Return an experiment directory with the trained run `base`."""
    folder = tmp_path / "exp"
    shutil.copytree(trained / "base", folder / "base", ignore=shutil.ignore_patterns("checkpoints"))
    return folder


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


# Trained runs


@pytest.mark.slow
def test_decode_writes_one_row_per_clip_of_every_test_set(expdir, datadir):
    decode(str(expdir), str(datadir), ["base"])
    lm = load_speech_lm(str(expdir / "base" / "final"))
    settings = read_config(expdir / "base" / "config.yaml").decode
    assert sorted(p.name for p in (expdir / "base" / "decode").iterdir()) == ["test-a.jsonl", "test-b.jsonl"]
    for name, size in SIZES.items():
        found = rows(expdir / "base" / "decode" / f"{name}.jsonl")
        cuts = {cut.id: cut for cut in CutSet.from_file(datadir / f"{name}.jsonl.gz")}
        assert sorted(row["id"] for row in found) == sorted(cuts) and len(found) == size
        for row in found:
            assert list(row) == ["id", "reference", "hypothesis", "seconds", "num_tokens", "stopped", "looping"]
            assert row["reference"] == cuts[row["id"]].supervisions[0].text
            assert row["seconds"] == pytest.approx(cuts[row["id"]].duration, abs=0.001)
            assert 1 <= row["num_tokens"] <= settings.max_new_tokens
            assert row["stopped"] or row["num_tokens"] == settings.max_new_tokens
        for index in range(size):  # a transcript does not depend on the rest of the batch
            batch = clips(datadir / f"{name}.jsonl.gz", [index])
            assert transcribe(lm, batch, settings)[0] in found
    assert any(row["hypothesis"] for row in found)


def test_decode_logs_counts_of_looping_and_cut_transcripts(expdir, datadir, capsys):
    decode(str(expdir), str(datadir), ["base"])
    output = capsys.readouterr().out
    for name, size in SIZES.items():
        target = expdir / "base" / "decode" / f"{name}.jsonl"
        looping, stopped = ([row[key] for row in rows(target)] for key in ("looping", "stopped"))
        assert f"{target}: {size} clips, {sum(looping)} looping, {size - sum(stopped)} cut at the token cap" in output


def test_decode_keeps_existing_hypotheses(expdir, datadir, capsys):
    decode(str(expdir), str(datadir), ["base"])
    before = {path: path.stat().st_mtime_ns for path in (expdir / "base" / "decode").iterdir()}
    shutil.rmtree(expdir / "base" / "final")  # the model is not loaded again
    capsys.readouterr()
    decode(str(expdir), str(datadir), ["base"])
    assert capsys.readouterr().out.count("already exists") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("cut", ['{"id": "test-a-04", "refer', "", None])
def test_decode_resumes_partial_file(expdir, datadir, cut):
    decode(str(expdir), str(datadir), ["base"])
    target = expdir / "base" / "decode" / "test-a.jsonl"
    whole = rows(target)
    kept = [dict(whole[0], hypothesis="line\u2028separator {kept}"), dict(whole[1], hypothesis="next\x85line\nkept")]
    lines = [json.dumps(row, ensure_ascii=False) for row in kept]
    text = "\n".join(lines) if cut is None else "\n".join(lines) + "\n" + cut
    target.with_name("test-a.jsonl.part").write_text(text, encoding="utf-8")
    target.unlink()
    decode(str(expdir), str(datadir), ["base"])
    found = rows(target)
    assert found[:2] == kept  # not transcribed again
    by_id = {row["id"]: row for row in whole[2:]}
    assert {row["id"]: row for row in found[2:]} == by_id and len(found) == 5
    assert not target.with_name("test-a.jsonl.part").exists()


def test_decode_resumes_after_interruption(expdir, datadir, monkeypatch):
    transcribed = []

    def interrupted(lm, batch, settings):
        transcribed.append(batch.ids)
        if len(transcribed) == 3:
            raise KeyboardInterrupt
        return transcribe(lm, batch, settings)

    config = read_config(expdir / "base" / "config.yaml")
    config.decode.max_seconds = 0.1  # one clip per batch
    dump_config(config, expdir / "base" / "config.yaml")
    with monkeypatch.context() as patch:
        patch.setattr(decode_module, "transcribe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decode(str(expdir), str(datadir), ["base"])
        target = expdir / "base" / "decode" / "test-a.jsonl"
        assert not target.exists() and [row["id"] for row in rows(target.with_name("test-a.jsonl.part"))] == [
            name for (name,) in transcribed[:2]
        ]
        decode(str(expdir), str(datadir), ["base"])
    names = [name for (name,) in transcribed]
    assert names[2] == names[3] and len(names) == 5 + 3 + 1  # only the interrupted clip is transcribed twice
    assert len(rows(target)) == 5


def test_decode_skips_and_names_unreadable_clip(expdir, own_data, tmp_path, capsys):
    cuts = list(CutSet.from_file(own_data / "test-a.jsonl.gz"))
    cuts[2].recording.sources[0].source = str(tmp_path / "absent.wav")
    CutSet.from_cuts(cuts).to_file(own_data / "test-a.jsonl.gz")
    decode(str(expdir), str(own_data), ["base"])
    found = {row["id"] for row in rows(expdir / "base" / "decode" / "test-a.jsonl")}
    assert found == {cut.id for cut in cuts} - {cuts[2].id}
    assert f"dropped {cuts[2].id} ({tmp_path / 'absent.wav'})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["nobody"], "nobody: no such run (no config.yaml); train it with --stage 3"),
        (["half"], "half/final: no trained model here; run the recipe with --stage 3 first"),
        (["teacher"], "no distilled run names a teacher to decode with"),
    ],
)
def test_decode_rejects_missing_runs(expdir, datadir, capsys, runs, message):
    (expdir / "half").mkdir()
    shutil.copy(expdir / "base" / "config.yaml", expdir / "half")
    assert main(["decode", "--expdir", str(expdir), "--datadir", str(datadir), "--runs", *runs]) == 2
    assert message in capsys.readouterr().err


# The teacher


def add_run_with_echo_teacher(conf, expdir, datadir) -> None:
    (expdir / "base_opd").mkdir()
    config = load_config(conf, "base_opd", str(expdir), str(datadir), ["teacher.name=echo"])
    dump_config(config, expdir / "base_opd" / "config.yaml")


def test_decode_teacher_uses_plugin_of_distilled_run(conf, expdir, datadir, echo):
    add_run_with_echo_teacher(conf, expdir, datadir)
    decode(str(expdir), str(datadir), ["teacher"])
    for name, size in SIZES.items():
        found = rows(expdir / "teacher" / "decode" / f"{name}.jsonl")
        assert len(found) == size
        for row in found:
            samples = round(row["seconds"] * 16000)
            assert row["hypothesis"] == (f"English {samples}" if samples >= 16000 else "")
            assert row["num_tokens"] is None and row["stopped"] is None


def test_decode_teacher_matches_decoding_of_its_run(conf, trained, datadir, tmp_path):
    shutil.copytree(trained / "teacher", tmp_path / "teacher")
    config = load_config(conf, "base_opd", str(tmp_path), str(datadir))
    (tmp_path / "base_opd").mkdir()
    dump_config(config, tmp_path / "base_opd" / "config.yaml")
    decode(str(tmp_path), str(datadir), ["teacher"])
    found = {row["id"]: row["hypothesis"] for row in rows(tmp_path / "teacher" / "decode" / "test-a.jsonl")}
    lm = load_speech_lm(str(trained / "teacher" / "final"))
    expected = transcribe(lm, clips(datadir / "test-a.jsonl.gz"), config.decode)
    assert found == {row["id"]: row["hypothesis"] for row in expected} and any(found.values())
