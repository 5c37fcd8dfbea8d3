"""Hypotheses of runs and of the teacher, with resumed decoding."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest
from corpus_fixture import clips, evaluation_batches
from lhotse import CutSet
from locks import lock_held
from tiny import ARK_SIZES, eager_to_stop, student, student_tokenizer, teacher

from arkasr.cli import main
from arkasr.config.load import dump_config, load_config, read_config
from arkasr.errors import UserError
from arkasr.evaluation import transcribers
from arkasr.evaluation.agreement import sample
from arkasr.evaluation.decode import decode
from arkasr.evaluation.hypotheses import transcribe
from arkasr.model.build import build_fresh
from arkasr.model.loading import load_speech_lm

SIZES = {"test-a": 5, "test-b": 3}


@pytest.fixture(scope="module")
def base(tmp_path_factory, conf, datadir) -> Path:
    """Return an experiment directory with a run `base` of random weights that stop some transcripts."""
    expdir = tmp_path_factory.mktemp("base")
    eager_to_stop(student(7), 2.0).save(expdir / "base" / "final")
    dump_config(load_config(conf, "base", str(expdir), str(datadir)), expdir / "base" / "config.yaml")
    return expdir


@pytest.fixture
def expdir(base, tmp_path):
    """Return a writable experiment directory with the run `base`."""
    return Path(shutil.copytree(base, tmp_path / "exp"))


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def change_config(expdir: Path, key: str, value: object, run: str = "base") -> None:
    """Change a key of the run's config.yaml."""
    config, (section, name) = read_config(expdir / run / "config.yaml"), key.split(".")
    setattr(getattr(config, section), name, value)
    dump_config(config, expdir / run / "config.yaml")


# Trained runs


@pytest.mark.slow
def test_decode_writes_one_row_per_clip_of_every_test_set(expdir, datadir):
    decode(str(expdir), str(datadir), ["base"])
    lm = load_speech_lm(str(expdir / "base" / "final"))
    settings = read_config(expdir / "base" / "config.yaml").decode
    names = sorted(p.name for p in (expdir / "base" / "decode").glob("[!.]*"))
    assert names == ["test-a.json", "test-a.jsonl", "test-b.json", "test-b.jsonl"]
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
    before = {path: path.stat().st_mtime_ns for path in (expdir / "base" / "decode").glob("test*")}
    shutil.rmtree(expdir / "base" / "final")  # the model is not loaded again
    capsys.readouterr()
    decode(str(expdir), str(datadir), ["base", "base"])
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

    change_config(expdir, "decode.max_seconds", 0.1)  # one clip per batch
    with monkeypatch.context() as patch:
        patch.setattr(transcribers, "transcribe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decode(str(expdir), str(datadir), ["base"])
        target = expdir / "base" / "decode" / "test-a.jsonl"
        assert not target.exists() and [row["id"] for row in rows(target.with_name("test-a.jsonl.part-0"))] == [
            name for (name,) in transcribed[:2]
        ]
        decode(str(expdir), str(datadir), ["base"])
    names = [name for (name,) in transcribed]
    assert names[2] == names[3] and len(names) == 5 + 3 + 1  # only the interrupted clip is transcribed twice
    assert len(rows(target)) == 5


def test_decode_skips_and_counts_unreadable_clip(expdir, own_data, tmp_path, capsys):
    cuts = list(CutSet.from_file(own_data / "test-a.jsonl.gz"))
    cuts[2].recording.sources[0].source = str(tmp_path / "absent.wav")
    CutSet.from_cuts(cuts).to_file(own_data / "test-a.jsonl.gz")
    change_config(expdir, "data.max_failed_share", 0.2)
    decode(str(expdir), str(own_data), ["base"])
    target = expdir / "base" / "decode" / "test-a.jsonl"
    assert {row["id"] for row in rows(target)} == {cut.id for cut in cuts} - {cuts[2].id}
    output = capsys.readouterr().out
    assert f"dropped {cuts[2].id} ({tmp_path / 'absent.wav'})" in output and f"{target}: 4 clips, " in output
    record = json.loads(target.with_suffix(".json").read_text())
    assert (record["clips"], record["failed"]) == (5, 1)
    assert record["failed_examples"][0].startswith(f"{cuts[2].id} ({tmp_path / 'absent.wav'}): missing audio file")


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


def test_decode_teacher_uses_plugin_of_distilled_run(conf, expdir, datadir, echo):
    add_distilled_run(conf, expdir, datadir, "base_opd")
    decode(str(expdir), str(datadir), ["teacher"])
    for name, size in SIZES.items():
        found = rows(expdir / "teacher" / "decode" / f"{name}.jsonl")
        assert len(found) == size
        for row in found:
            samples = round(row["seconds"] * 16000)
            assert row["hypothesis"] == (f"English {samples}" if samples >= 16000 else "")
            assert row["num_tokens"] is None and row["stopped"] is None


def test_decode_teacher_matches_decoding_of_its_run(conf, datadir, tmp_path):
    lm = eager_to_stop(teacher(3), 1.5)
    lm.save(tmp_path / "teacher" / "final")
    config = load_config(conf, "base_opd", str(tmp_path), str(datadir))
    dump_config(config, tmp_path / "base_opd" / "config.yaml")
    decode(str(tmp_path), str(datadir), ["teacher"])
    expected = transcribe(lm, clips(datadir / "test-a.jsonl.gz"), config.decode)
    found = {row["id"]: row for row in rows(tmp_path / "teacher" / "decode" / "test-a.jsonl")}
    assert found == {row["id"]: row for row in expected} and any(row["hypothesis"] for row in expected)


def add_distilled_run(conf, expdir, datadir, run, *overrides) -> None:
    config = load_config(conf, run, str(expdir), str(datadir), ["teacher.name=echo", *overrides])
    dump_config(config, expdir / run / "config.yaml")


@pytest.mark.slow
def test_decode_rejects_runs_with_different_teachers_unless_one_is_named(conf, expdir, datadir, echo, capsys):
    add_distilled_run(conf, expdir, datadir, "base_opd", "teacher.options.path=a/b")
    add_distilled_run(conf, expdir, datadir, "base_td_opd", "teacher.options.path=c/d")
    with pytest.raises(UserError, match=r"base_opd and base_td_opd have different teachers \(teacher.options.path\)"):
        decode(str(expdir), str(datadir), ["teacher", "base"])
    target = expdir / "teacher" / "decode" / "test-a.jsonl"
    for run, path in (("base_opd", "a/b"), ("base_td_opd", "c/d")):
        shutil.copytree(expdir / "base" / "final", expdir / run / "final")
        decode(str(expdir), str(datadir), ["teacher", run])
        assert json.loads(target.with_suffix(".json").read_text())["teacher"]["path"] == path
    assert "test-a.jsonl: 5 hypotheses are out of date (changed: teacher.options.path)" in capsys.readouterr().out


def test_decode_accepts_runs_with_the_same_teacher(conf, expdir, datadir, echo):
    for run in ("base_opd", "base_td_opd"):
        add_distilled_run(conf, expdir, datadir, run)
    decode(str(expdir), str(datadir), ["teacher"])
    assert len(rows(expdir / "teacher" / "decode" / "test-a.jsonl")) == 5


# Failed clips


@pytest.fixture
def echo_teacher(conf, expdir, own_data, echo):
    """Decode the teacher `echo`, whose module is the value."""
    add_distilled_run(conf, expdir, own_data, "base_opd")
    return import_module("fake_echo")


def decode_teacher(expdir, datadir) -> int:
    return main(["decode", "--expdir", str(expdir), "--datadir", str(datadir), "--runs", "teacher"])


@pytest.mark.parametrize("lost", [1, 5])
def test_decode_with_lost_audio_writes_no_result_and_finishes_when_it_is_back(
    echo_teacher, expdir, own_data, tmp_path, capsys, lost
):
    cuts = list(CutSet.from_file(own_data / "test-a.jsonl.gz"))
    shutil.copytree(Path(cuts[0].recording.sources[0].source).parent, tmp_path / "audio")
    for cut in cuts:
        source = cut.recording.sources[0]
        source.source = str(tmp_path / "audio" / Path(source.source).name)
    CutSet.from_cuts(cuts).to_file(own_data / "test-a.jsonl.gz")
    files = [Path(cut.recording.sources[0].source) for cut in cuts[:lost]]
    for file in files:
        file.rename(file.with_suffix(".away"))
    assert decode_teacher(expdir, own_data) == 2
    share = "all clips" if lost == 5 else "more than data.max_failed_share=0.05"
    assert f"{share} failed, {lost} of 5 ({lost} missing audio file)" in capsys.readouterr().err
    target = expdir / "teacher" / "decode" / "test-a.jsonl"
    assert not target.exists() and len(rows(target.with_name("test-a.jsonl.part-0"))) == 5 - lost
    for file in files:
        file.with_suffix(".away").rename(file)
    echo_teacher.LENGTHS.clear()
    assert decode_teacher(expdir, own_data) == 0
    assert len(rows(target)) == 5 and len(echo_teacher.LENGTHS) == lost + 3  # of the set test-b
    assert json.loads(target.with_suffix(".json").read_text())["failed"] == 0


def test_decode_transcribes_failed_clips_again(echo_teacher, expdir, own_data, capsys):
    """A share of failed clips is allowed, but the same command tries them again."""
    change_config(expdir, "data.max_failed_share", 0.2, "base_opd")
    [*_, cut] = CutSet.from_file(own_data / "test-a.jsonl.gz")
    echo_teacher.ERRORS[cut.num_samples] = UserError("too long")
    target = expdir / "teacher" / "decode" / "test-a.jsonl"
    for expected in (4, 4, 5):
        assert decode_teacher(expdir, own_data) == 0
        assert len(rows(target)) == expected
        echo_teacher.LENGTHS.clear()
        if expected == 4 and "transcribed again" in capsys.readouterr().out:
            echo_teacher.ERRORS.clear()
    assert json.loads(target.with_suffix(".json").read_text())["failed"] == 0


def test_decode_ends_early_if_the_teacher_refuses_too_many_clips(echo_teacher, expdir, own_data, capsys):
    for cut in CutSet.from_file(own_data / "test-a.jsonl.gz"):
        echo_teacher.ERRORS[cut.num_samples] = ValueError("wrong shape")
    change_config(expdir, "decode.max_seconds", 0.1, "base_opd")  # one clip per batch
    assert decode_teacher(expdir, own_data) == 2
    captured = capsys.readouterr()
    assert "more than data.max_failed_share=0.05 failed, 1 of 5 (1 not transcribed)" in captured.err
    assert captured.out.count("dropped ") == 1 and "ValueError: wrong shape" in captured.out


def test_decode_warns_of_cut_transcripts(echo_teacher, expdir, own_data, capsys):
    for cut in list(CutSet.from_file(own_data / "test-a.jsonl.gz")):
        echo_teacher.REPORTS[cut.num_samples] = (True, False)
    echo_teacher.REPORTS[cut.num_samples] = (False, True)
    assert decode_teacher(expdir, own_data) == 0
    output = capsys.readouterr().out
    assert "test-a.jsonl: 5 clips, 1 looping, 1 cut at the token cap" in output
    assert "warning: decode teacher test-a: 1 of 5 transcripts (20.0%) are cut at the token cap; raise its" in output
    assert "test-b.jsonl: 3 clips, cut and looping transcripts are not reported" in output


# Changed inputs


def decoded(expdir, datadir, name="test-a") -> bytes:
    decode(str(expdir), str(datadir), ["base"])
    return (expdir / "base" / "decode" / f"{name}.jsonl").read_bytes()


def new_weights(expdir, own_data):
    eager_to_stop(student(8), 2.0).save(expdir / "base" / "final")


def new_cap(expdir, own_data):
    change_config(expdir, "decode.max_new_tokens", 3)


def new_clips(expdir, own_data):
    cuts = list(CutSet.from_file(own_data / "test-a.jsonl.gz"))
    CutSet.from_cuts(cuts[1:]).to_file(own_data / "test-a.jsonl.gz")


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (new_weights, "changed: weights in {expdir}/base/final"),
        (new_cap, "changed: decode.max_new_tokens (6, now 3)"),
        (new_clips, "changed: clips or texts of {data}/test-a.jsonl.gz"),
    ],
)
def test_decode_replaces_hypotheses_of_other_inputs(expdir, own_data, capsys, change, reason, finished):
    before = decoded(expdir, own_data)
    target = expdir / "base" / "decode" / "test-a.jsonl"
    if not finished:
        target.replace(target.with_name("test-a.jsonl.part"))
    change(expdir, own_data)
    capsys.readouterr()
    assert decoded(expdir, own_data) != before
    message = f"{target}: 5 hypotheses are out of date ({reason.format(expdir=expdir, data=own_data)}); decoding again"
    assert message in capsys.readouterr().out
    assert decoded(expdir, own_data) and capsys.readouterr().out.count("already exists") == 2


def test_decode_keeps_hypotheses_if_only_the_batch_size_changes(expdir, datadir, capsys):
    before = decoded(expdir, datadir)
    change_config(expdir, "decode.max_seconds", 3.0)
    assert decoded(expdir, datadir) == before and "already exists" in capsys.readouterr().out


def test_decode_needs_a_model_before_it_deletes_outdated_hypotheses(expdir, own_data):
    before = decoded(expdir, own_data)
    new_clips(expdir, own_data)
    shutil.rmtree(expdir / "base" / "final")
    with pytest.raises(UserError, match="no trained model here"):
        decode(str(expdir), str(own_data), ["base"])
    assert (expdir / "base" / "decode" / "test-a.jsonl").read_bytes() == before


def test_decode_accepts_complete_hypotheses_without_record_with_a_warning(expdir, datadir, capsys):
    """Those of older versions."""
    before = decoded(expdir, datadir)
    for path in (expdir / "base" / "decode").glob("*.json"):
        path.unlink()
    capsys.readouterr()
    assert decoded(expdir, datadir) == before
    assert capsys.readouterr().out.count("already exists; warning: there is no record of what they were deco") == 2


@pytest.mark.parametrize("content", [b"", b'{"id": "test-a-00", "hypothesis": "x"}\n'])
def test_decode_replaces_incomplete_hypotheses_without_record(expdir, datadir, content):
    """Older versions wrote an empty file if no audio could be read."""
    before = decoded(expdir, datadir)
    target = expdir / "base" / "decode" / "test-a.jsonl"
    target.with_suffix(".json").unlink()
    target.write_bytes(content)
    assert decoded(expdir, datadir) == before


# The dtype


def record_of(expdir, name="test-a") -> dict:
    return json.loads((expdir / "base" / "decode" / f"{name}.json").read_text())


def test_decode_in_bfloat16_reports_the_agreement_with_float32(expdir, datadir, capsys):
    """Float32 is decoded first, and compared with bfloat16 here."""
    target = expdir / "base" / "decode" / "test-a.jsonl"
    exact = {row["id"]: row["hypothesis"] for row in map(json.loads, decoded(expdir, datadir).splitlines())}
    assert record_of(expdir)["settings"]["dtype"] == "float32" and "agreement" not in record_of(expdir)
    change_config(expdir, "decode.dtype", "bfloat16")
    change_config(expdir, "decode.agreement_clips", 4)
    capsys.readouterr()
    found = {row["id"]: row["hypothesis"] for row in map(json.loads, decoded(expdir, datadir).splitlines())}
    output, record = capsys.readouterr().out, record_of(expdir)
    assert "(changed: decode.dtype (float32, now bfloat16)); decoding again" in output
    assert record["settings"]["dtype"] == "bfloat16" and record["agreement"]["clips"] == 4
    clips = sample(exact, 4)
    assert record["agreement"]["equal"] == sum(found[clip] == exact[clip] for clip in clips)
    assert f"{target}: decoded in bfloat16; {record['agreement']['equal']} of 4 transcripts are equal to" in output
    lm = load_speech_lm(str(expdir / "base" / "final"), "bfloat16")
    settings = read_config(expdir / "base" / "config.yaml").decode
    batches = evaluation_batches(datadir / "test-a.jsonl.gz", settings.max_seconds)
    assert {row["id"]: row["hypothesis"] for batch in batches for row in transcribe(lm, batch, settings)} == found


def test_decode_in_bfloat16_without_a_sample_records_no_agreement(expdir, datadir, capsys):
    change_config(expdir, "decode.dtype", "bfloat16")
    change_config(expdir, "decode.agreement_clips", 0)
    assert decoded(expdir, datadir) and "agreement" not in record_of(expdir)
    assert "equal to those in float32" not in capsys.readouterr().out
    change_config(expdir, "decode.agreement_clips", 9)  # no reason to decode again
    assert decoded(expdir, datadir) and capsys.readouterr().out.count("already exists") == 2


def test_agreement_leaves_out_clips_without_a_hypothesis(expdir, own_data, tmp_path, capsys):
    cuts = list(CutSet.from_file(own_data / "test-a.jsonl.gz"))
    cuts[2].recording.sources[0].source = str(tmp_path / "absent.wav")
    CutSet.from_cuts(cuts).to_file(own_data / "test-a.jsonl.gz")
    change_config(expdir, "data.max_failed_share", 0.2)
    change_config(expdir, "decode.dtype", "bfloat16")
    assert decoded(expdir, own_data) and record_of(expdir)["agreement"]["clips"] == 4
    assert capsys.readouterr().out.count(f"dropped {cuts[2].id}") == 1


def test_automatic_dtype_keeps_what_a_machine_with_a_gpu_has_decoded(expdir, datadir, capsys):
    """Complete hypotheses are kept. Incomplete ones are not continued in another dtype."""
    change_config(expdir, "decode.dtype", "bfloat16")
    before = decoded(expdir, datadir)
    change_config(expdir, "decode.dtype", "auto")
    capsys.readouterr()
    assert decoded(expdir, datadir) == before and capsys.readouterr().out.count("already exists") == 2
    target = expdir / "base" / "decode" / "test-a.jsonl"
    target.replace(target.with_name("test-a.jsonl.part"))
    decoded(expdir, datadir)
    assert "5 hypotheses are out of date (changed: decode.dtype (bfloat16, now float32))" in capsys.readouterr().out
    assert record_of(expdir)["settings"]["dtype"] == "float32"


# Damaged files, and two processes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test-a.jsonl", "test-a.jsonl.part"])
@pytest.mark.parametrize(
    "damage", [b"", b"\x00" * 200, b"\xff\xfe\n", b'{"id": 3, "hypothesis": "x"}\n', b"[]\n{}\n\n"]
)
def test_decode_repairs_damaged_hypotheses(expdir, datadir, capsys, name, damage):
    before = decoded(expdir, datadir)
    target = expdir / "base" / "decode" / "test-a.jsonl"
    lines = before.splitlines(keepends=True)
    target.rename(target.with_name(name)).write_bytes(damage + lines[0] + lines[0] + lines[1] + lines[2][:20])
    capsys.readouterr()
    assert sorted(decoded(expdir, datadir).splitlines()) == sorted(before.splitlines())
    assert "damaged lines and 0 of clips with another duration left out; their clips" in capsys.readouterr().out


def test_decode_rejects_damaged_record(expdir, datadir):
    decoded(expdir, datadir)
    record = expdir / "base" / "decode" / "test-a.json"
    record.write_bytes(b"")
    with pytest.raises(UserError, match="test-a.json: not valid JSON .*delete it and test-a.jsonl"):
        decoded(expdir, datadir)


def test_decode_refuses_run_that_another_process_decodes(expdir, datadir):
    (expdir / "base" / "decode").mkdir()
    with lock_held(expdir / "base" / "decode"), pytest.raises(UserError, match="base/decode: testing, .* is using"):
        decode(str(expdir), str(datadir), ["base"])
    assert decoded(expdir, datadir)


def test_decode_rejects_empty_list_of_runs(expdir, datadir):
    with pytest.raises(UserError, match="--runs is empty"):
        decode(str(expdir), str(datadir), [])


def test_decode_counts_clip_that_is_too_long_for_the_model(expdir, own_data, capsys):
    """A model with learned encoder positions refuses longer clips. Only the longest clip is longer than 50 per s."""
    cuts = sorted(CutSet.from_file(own_data / "test-a.jsonl.gz"), key=lambda cut: cut.duration)
    positions = {"positions": "learned", "max_position_embeddings": 1 + int(50 * cuts[-2].duration)}
    sizes = ARK_SIZES | {"audio": ARK_SIZES["audio"] | positions}
    build_fresh("arkasr", sizes, student_tokenizer()).save(expdir / "base" / "final")
    change_config(expdir, "data.max_failed_share", 0.2)
    decode(str(expdir), str(own_data), ["base"])
    target = expdir / "base" / "decode" / "test-a.jsonl"
    assert {row["id"] for row in rows(target)} == {cut.id for cut in cuts[:-1]}
    [failure] = json.loads(target.with_suffix(".json").read_text())["failed_examples"]
    assert failure.startswith(f"{cuts[-1].id} (") and "the encoder of this model has positions for" in failure
