"""Teacher labels of the TD subset: selection of clips, resumed and repeated labelling."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from corpus_fixture import clips, cut_of, write_cuts
from lhotse import CutSet
from locks import lock_held

from arkasr.cli import main
from arkasr.config.load import load_config
from arkasr.errors import UserError
from arkasr.evaluation import label as label_module
from arkasr.evaluation.hypotheses import transcribe
from arkasr.evaluation.label import label
from arkasr.model.loading import load_speech_lm


def tone(size):
    return 0.1 * np.sin(np.arange(size))


@pytest.mark.slow
def test_label_replaces_text_and_keeps_reference(conf, own_data, tmp_path, capsys, echo):
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])
    source = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    labelled = {cut.id: cut for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")}
    with_words = [cut for cut in source if cut.num_samples >= 16000]
    assert 0 < len(with_words) < len(source) and list(labelled) == [cut.id for cut in with_words]
    for cut in with_words:
        supervision = labelled[cut.id].supervisions[0]
        assert supervision.text == f"English {cut.num_samples}"
        assert supervision.custom["reference"] == cut.supervisions[0].text
        assert labelled[cut.id].recording.sources[0].source == cut.recording.sources[0].source
    num_empty = len(source) - len(with_words)
    message = f"{len(with_words)} clips labelled by the teacher, left out: {num_empty} with an empty transcript"
    assert message in capsys.readouterr().out
    files = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*td_teacher*")}
    assert files.keys() == {"td_teacher.jsonl.gz", "td_teacher.jsonl", "td_teacher.json"}
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])
    assert "td_teacher.jsonl.gz: already exists" in capsys.readouterr().out
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*td_teacher*")} == files


def transcripts(*texts):
    """Return a function that writes transcripts of some cuts as a partial file, which `label` resumes."""
    return lambda cuts, folder: (folder / "td_teacher.jsonl.part").write_text(
        "".join(json.dumps({"id": cut.id, "hypothesis": text}) + "\n" for cut, text in zip(cuts, texts, strict=True))
    )


PROFILES = {"wer": "unicode", "cer": "unicode-cer"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "kept", "above"),
    [
        ("1.0", [0, 1, 2], ""),
        ("0.5", [0, 1], ", 1 above teacher_data.max_error=0.5"),
        ("0.49", [0], ", 2 above teacher_data.max_error=0.49"),
    ],
)
@pytest.mark.parametrize("metric", ["wer", "cer"])
def test_label_leaves_out_transcripts_above_max_error(
    conf, own_data, tmp_path, echo, capsys, limit, kept, above, metric
):
    """Error rates of 0 after normalisation, 0.5, and far above 1. The last transcript is empty."""
    facts = json.loads((own_data / "corpus.json").read_text())
    (own_data / "corpus.json").write_text(json.dumps(facts | {"profiles": [PROFILES[metric]]}))
    cuts = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    for cut, text in zip(cuts, ["One, two!", "ab cd", "x", "red"], strict=True):
        cut.supervisions[0].text = text
    CutSet.from_cuts(cuts).to_file(own_data / "td.jsonl.gz")
    half = "ab xy" if metric == "wer" else "ab cdxx"  # one of two words, or two of four characters
    transcripts("one two", half, "so many other words", "")(cuts, tmp_path)
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo", f"teacher_data.max_error={limit}"])
    labelled = [cut.id for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")]
    assert labelled == [cuts[i].id for i in kept]
    message = f"{len(kept)} clips labelled by the teacher, left out: 1 with an empty transcript{above}\n"
    assert message in capsys.readouterr().out


def test_label_keeps_clips_without_reference(conf, own_data, tmp_path, echo):
    cuts = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    for cut, text in zip(cuts, ["", "...", "red", "blue"], strict=True):
        cut.supervisions[0].text = text
    CutSet.from_cuts(cuts).to_file(own_data / "td.jsonl.gz")
    transcripts("one", "two", "red", "green")(cuts, tmp_path)
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo", "teacher_data.max_error=0"])
    labelled = [cut.id for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")]
    assert labelled == [cut.id for cut in cuts[:3]]


def test_label_rejects_max_error_that_leaves_no_clip(conf, own_data, tmp_path, echo):
    cuts = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    transcripts("q", "q", "q", "")(cuts, tmp_path)
    message = "no clip is left .*: 1 with an empty transcript, 3 above teacher_data.max_error=0.1; raise teacher_data"
    with pytest.raises(UserError, match=message):
        label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo", "teacher_data.max_error=0.1"])


def test_label_replaces_labels_of_other_clips(conf, own_data, tmp_path, echo, capsys):
    others = [cut.with_id(f"old-{cut.id}") for cut in CutSet.from_file(own_data / "td.jsonl.gz")]
    CutSet.from_cuts(others).to_file(tmp_path / "td_teacher.jsonl.gz")
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])
    assert "transcripts not found, transcribing again" in capsys.readouterr().out
    assert not any(cut.id.startswith("old-") for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz"))


def test_label_resumes_partial_file(conf, own_data, tmp_path, echo):
    (cut, *others) = CutSet.from_file(own_data / "td.jsonl.gz")
    done = {"id": cut.id, "reference": "x", "hypothesis": "kept", "seconds": cut.duration, "stopped": None}
    (tmp_path / "td_teacher.jsonl.part").write_text(json.dumps(done) + '\n{"id": "' + others[0].id)
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])
    labelled = {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")}
    with_words = [c for c in others if c.num_samples >= 16000]
    assert labelled == {cut.id: "kept"} | {c.id: f"English {c.num_samples}" for c in with_words}


def test_label_rejects_only_empty_transcripts_and_can_be_repeated(conf, own_data, tmp_path, echo, capsys):
    source = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    write_cuts(own_data / "td.jsonl.gz", [cut_of(tmp_path / f"c{i}.wav", tone(3200), "red") for i in range(4)])
    words = ["label", str(conf), "--expdir", str(tmp_path), "--datadir", str(own_data), "teacher.name=echo"]
    assert main(words) == 2
    message = "no transcript of the teacher can be used: 4 with an empty transcript; train the teacher longer"
    assert message in capsys.readouterr().err
    CutSet.from_cuts(source).to_file(own_data / "td.jsonl.gz")
    assert main(words) == 0 and (tmp_path / "td_teacher.jsonl.gz").is_file()


def test_label_matches_decoding_of_teacher_run(conf, trained, own_data, tmp_path):
    (tmp_path / "teacher").symlink_to(trained / "teacher")
    label(str(conf), str(tmp_path), str(own_data), [])
    lm = load_speech_lm(str(trained / "teacher" / "final"))
    settings = load_config(conf, "base_opd", str(trained), str(own_data)).decode
    expected = {r["id"]: r["hypothesis"] for r in transcribe(lm, clips(own_data / "td.jsonl.gz"), settings)}
    labelled = {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")}
    assert labelled == {name: text for name, text in expected.items() if text} and labelled


def test_label_rejects_missing_subset(conf, own_data, tmp_path, echo):
    (own_data / "td.jsonl.gz").unlink()
    with pytest.raises(UserError, match="td.jsonl.gz: no such manifest; run the recipe from --stage 1"):
        label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])


# Repeated labelling


class Labelling:
    """Calls of `label` with the teacher `echo` on four clips. The transcript of the fourth is empty."""

    def __init__(self, conf: Path, datadir: Path, folder: Path):
        self.conf, self.datadir, self.expdir, self.td = conf, datadir, folder / "labels", datadir / "td.jsonl.gz"
        texts = ["English 20000", "other words", "English", "red"]
        sizes = [20000, 20001, 20002, 800]
        self.cuts = [cut_of(folder / f"c{i}.wav", tone(sizes[i]), text) for i, text in enumerate(texts)]
        write_cuts(self.td, self.cuts)

    def __call__(self, *overrides: str, name: str = "echo") -> dict[str, str]:
        """Label and return the texts by id."""
        label(str(self.conf), str(self.expdir), str(self.datadir), [f"teacher.name={name}", *overrides])
        return {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(self.target)}

    @property
    def target(self) -> Path:
        return self.expdir / "td_teacher.jsonl.gz"

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.expdir.glob("td*")}

    @staticmethod
    def calls() -> tuple[int, int]:
        """Return the numbers of created teachers and of transcribed clips since the last call."""
        teacher = import_module("fake_echo")
        counts = len(teacher.OPTIONS), len(teacher.LENGTHS)
        teacher.OPTIONS.clear()
        teacher.LENGTHS.clear()
        return counts


ALL = {f"c{i}": f"English 2000{i}" for i in range(3)}


@pytest.fixture
def labelling(conf, own_data, tmp_path, echo) -> Labelling:
    return Labelling(conf, own_data, tmp_path)


@pytest.mark.slow
def test_label_with_other_limit_selects_from_same_transcripts(labelling, capsys):
    assert labelling() == ALL and labelling.calls() == (1, 4)
    assert labelling("teacher_data.max_error=0") == {"c0": ALL["c0"]}
    assert labelling("teacher_data.max_error=0.5") == {"c0": ALL["c0"]}
    assert f"{labelling.target}: the clips or settings have changed" in capsys.readouterr().out
    # c1 and c2 have a rate of 1: two errors in two words, and one error in one word
    assert labelling("teacher_data.max_error=0.99") == {"c0": ALL["c0"]}
    assert labelling() == ALL and labelling.calls() == (0, 0)


@pytest.mark.slow
def test_label_removes_older_labels_if_no_clip_is_left(labelling):
    write_cuts(labelling.td, labelling.cuts[1:])
    few = labelling()
    with pytest.raises(UserError, match="max_error=0; raise teacher_data.max_error"):
        labelling("teacher_data.max_error=0")
    assert not labelling.target.exists()
    assert labelling() == few and labelling.calls() == (1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"profiles": ["raw"]}, {"language": "Chinese"}])
def test_label_selects_again_if_profile_or_language_changes(labelling, capsys, change):
    facts = json.loads((labelling.datadir / "corpus.json").read_text())
    labelling("teacher_data.max_error=0.5")
    (labelling.datadir / "corpus.json").write_text(json.dumps(facts | change))
    for message in ("selecting again from", "td_teacher.jsonl.gz: already exists"):
        capsys.readouterr()
        labelling("teacher_data.max_error=0.5")
        assert message in capsys.readouterr().out
    assert labelling.calls() == (1, 4)


@pytest.mark.slow
def test_label_transcribes_only_new_clips(labelling, tmp_path):
    labelling()
    new = [cut_of(tmp_path / f"new{i}.wav", tone(30000 + i), "blue") for i in range(2)]
    write_cuts(labelling.td, [*labelling.cuts[1:], *new])
    labelling.calls()
    expected = {"c1": ALL["c1"], "c2": ALL["c2"], "new0": "English 30000", "new1": "English 30001"}
    assert labelling() == expected and labelling.calls() == (1, 2)
    write_cuts(labelling.td, labelling.cuts)
    assert labelling() == ALL and labelling.calls() == (0, 0)  # transcripts of clips outside the subset are kept


def test_label_transcribes_clip_again_if_its_audio_is_another(labelling, tmp_path, capsys):
    """The clip of another corpus may have the same id."""
    labelling()
    (tmp_path / "other").mkdir()
    other = cut_of(tmp_path / "other" / "c1.wav", tone(30000), "blue")
    write_cuts(labelling.td, [labelling.cuts[0], other])
    labelling.calls()
    assert labelling() == {"c0": ALL["c0"], "c1": "English 30000"} and labelling.calls() == (1, 1)
    assert "0 damaged lines and 1 of clips with another duration left out" in capsys.readouterr().out


@pytest.mark.slow
def test_label_creates_no_teacher_for_unreadable_clips(labelling, tmp_path):
    labelling()
    gone = cut_of(tmp_path / "gone.wav", tone(30000), "blue")
    (tmp_path / "gone.wav").unlink()
    write_cuts(labelling.td, [*labelling.cuts, gone])
    labelling.calls()
    assert labelling("data.max_failed_share=0.2") == ALL and labelling.calls() == (0, 0)


@pytest.mark.slow
def test_label_uses_corrected_reference(labelling):
    labelling("teacher_data.max_error=0")
    labelling.cuts[1].supervisions[0].text = "english 20001"
    write_cuts(labelling.td, labelling.cuts)
    assert labelling("teacher_data.max_error=0") == {"c0": ALL["c0"], "c1": ALL["c1"]}


def write_weights(folder: Path, offset: int) -> Path:
    """Write a weight file of 3 MB. A tenth of its bytes, from `offset` on, differs from other files."""
    folder.mkdir(exist_ok=True)
    data = bytearray(3_000_000)
    data[offset : offset + 300_000] = b"x" * 300_000
    (folder / "model.safetensors").write_bytes(data)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("name", "options", "changed"),
    [
        ("echo_again", ["path={model}"], "teacher.name"),
        ("echo", ["path={model}", "voice=deep"], "teacher.options.voice"),
        ("echo", ["path=some/model"], "teacher.options.path"),
        ("echo", ["path={other}"], "weights in teacher.options.path"),
        ("echo_again", [], "teacher.name, teacher.options.path"),
    ],
)
def test_label_rejects_transcripts_of_another_teacher_until_deleted(
    labelling, tmp_path, name, options, changed, finished
):
    folders = {
        "model": write_weights(tmp_path / "model", 500_000),
        "other": write_weights(tmp_path / "other", 1_500_000),
    }
    labelling(f"teacher.options.path={folders['model']}")
    transcripts = labelling.expdir / "td_teacher.jsonl"
    if not finished:
        labelling.target.unlink()
        transcripts = transcripts.rename(labelling.expdir / "td_teacher.jsonl.part")
    before, overrides = labelling.files(), [f"teacher.options.{option}".format(**folders) for option in options]
    labelling.calls()
    with pytest.raises(UserError) as caught:
        labelling(*overrides, name=name)
    message = f"{transcripts}: transcripts of another teacher (changed: {changed}); undo the change"
    assert str(caught.value).startswith(message)
    assert labelling.files() == before and labelling.calls() == (0, 0)
    transcripts.unlink()
    assert labelling(*overrides, name=name) == ALL and labelling.calls() == (1, 4)


@pytest.mark.slow
def test_label_detects_retrained_teacher_and_accepts_moved_teacher(labelling, tmp_path, capsys):
    model = write_weights(tmp_path / "model", 500_000)
    labelling(f"teacher.options.path={model}")
    moved = model.rename(tmp_path / "moved")
    (moved / "README.md").write_text("description")
    capsys.readouterr()
    labelling(f"teacher.options.path={moved}")
    assert "already exists" in capsys.readouterr().out
    write_weights(moved, 2_000_000)
    with pytest.raises(UserError, match="changed: weights in teacher.options.path"):
        labelling(f"teacher.options.path={moved}")
    shutil.rmtree(moved)  # existing labels need no teacher
    labelling(f"teacher.options.path={model}")
    assert "already exists" in capsys.readouterr().out and labelling.calls() == (1, 4)


def test_label_can_be_repeated_after_unknown_teacher(labelling):
    with pytest.raises(UserError, match="no teacher is called 'ecko'"):
        labelling(name="ecko")
    assert labelling() == ALL


def test_label_replaces_labels_without_record(labelling, capsys):
    labelling.expdir.mkdir()
    write_cuts(labelling.target, labelling.cuts[:2])
    assert labelling() == ALL
    assert "transcripts not found, transcribing again" in capsys.readouterr().out


@pytest.mark.slow
def test_label_interrupted_while_writing_cuts_does_not_transcribe_again(labelling, monkeypatch):
    labelling()
    with monkeypatch.context() as patch:
        patch.setattr(label_module, "write_cuts", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            labelling("teacher_data.max_error=0")
    assert labelling("teacher_data.max_error=0") == {"c0": ALL["c0"]}
    assert labelling.calls() == (1, 4)


# Cut and looping transcripts, failed clips


def report(**by_size: tuple[bool, bool]) -> None:
    """Let the teacher report `stopped` and `looping` of the clips with these numbers of samples."""
    import_module("fake_echo").REPORTS.update({int(size[1:]): value for size, value in by_size.items()})


def test_label_drops_and_counts_cut_and_looping_transcripts(labelling, capsys):
    """A transcript that is cut because it loops counts as looping."""
    report(n20000=(True, False), n20001=(False, False), n20002=(False, True), n800=(True, False))
    assert labelling() == {"c0": ALL["c0"]}
    output = capsys.readouterr().out
    reasons = "1 with an empty transcript, 1 with a looping transcript, 1 with a transcript cut at the token cap"
    assert f"1 clips labelled by the teacher, left out: {reasons}\n" in output
    assert "4 clips, 1 looping, 2 cut at the token cap" in output
    assert "warning: label td: 2 of 4 transcripts (50.0%) are cut at the token cap; raise its token limits" in output
    rows = [json.loads(line) for line in (labelling.expdir / "td_teacher.jsonl").read_text().splitlines()]
    assert {row["id"]: (row["stopped"], row["looping"]) for row in rows}["c2"] == (False, True)
    counts = json.loads((labelling.expdir / "td_teacher.json").read_text())["counts"]
    assert counts["kept"] == 1 and sum(counts["left_out"].values()) == 3


def test_label_keeps_transcripts_whose_end_is_not_reported_and_says_so(labelling, capsys):
    report(n20000=(False, False))
    assert labelling() == {name: text for name, text in ALL.items() if name != "c0"}
    assert "it is not reported for all transcripts whether they are cut or looping" in capsys.readouterr().out


def test_label_rejects_only_cut_transcripts(labelling):
    report(n20000=(False, False), n20001=(False, False), n20002=(False, True))
    with pytest.raises(UserError, match="no transcript of the teacher can be used: .*, 2 with a transcript cut at"):
        labelling()
    report(n20000=(True, False), n20001=(True, False), n20002=(True, False))
    assert labelling() == ALL  # the transcripts are made again


@pytest.mark.parametrize("lost", [1, 4])
def test_label_with_lost_audio_writes_no_result_and_finishes_when_it_is_back(labelling, capsys, lost):
    words = ["label", str(labelling.conf), "--expdir", str(labelling.expdir), "--datadir", str(labelling.datadir)]
    files = [Path(cut.recording.sources[0].source) for cut in labelling.cuts[:lost]]
    for file in files:
        file.rename(file.with_suffix(".away"))
    assert main([*words, "teacher.name=echo"]) == 2
    share = "all clips" if lost == 4 else "more than data.max_failed_share=0.05"
    assert f"{share} failed, {lost} of 4 ({lost} missing audio file)" in capsys.readouterr().err
    names = {path.name for path in labelling.expdir.glob("td*")}
    assert names == {"td_teacher.json", "td_teacher.jsonl.part-0"}
    for file in files:
        file.with_suffix(".away").rename(file)
    labelling.calls()
    assert labelling() == ALL and labelling.calls() == (1, lost)


def test_label_counts_clip_that_the_teacher_refuses(labelling, capsys):
    import_module("fake_echo").ERRORS[20001] = UserError("a clip has 99 s, but at most 30 s are possible")
    assert labelling("data.max_failed_share=0.3") == {name: text for name, text in ALL.items() if name != "c1"}
    output = capsys.readouterr().out
    assert "dropped c1 (1.25 s of audio): not transcribed: a clip has 99 s, but at most 30 s are possible" in output
    assert "2 clips labelled by the teacher, left out: 1 failed, 1 with an empty transcript" in output


def test_label_rejects_empty_subset(labelling):
    write_cuts(labelling.td, [])
    with pytest.raises(UserError, match="td.jsonl.gz"):
        labelling()


# Damaged files, and two processes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["td_teacher.jsonl", "td_teacher.jsonl.part"])
@pytest.mark.parametrize("damage", [b"", b"\x00" * 200, b"\xff\xfe\n", b'{"id": 3, "hypothesis": "x"}\n', b"[]\n{}\n"])
def test_label_repairs_damaged_transcripts(labelling, capsys, name, damage):
    labelling()
    whole = labelling.expdir / "td_teacher.jsonl"
    first, *_ = whole.read_bytes().splitlines(keepends=True)
    whole.rename(labelling.expdir / name).write_bytes(first + damage)
    labelling.target.unlink()
    labelling.calls()
    assert labelling() == ALL and labelling.calls() == (1, 3)
    assert ("damaged lines and" in capsys.readouterr().out) == bool(damage)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b'{"teacher": 3}', b'{"teacher": {"name": "echo"}}', b"{}"]
)
def test_label_rejects_damaged_record_until_deleted(labelling, content):
    labelling()
    record = labelling.expdir / "td_teacher.json"
    record.write_bytes(content)
    with pytest.raises(UserError, match="td_teacher.json.*delete it if td_teacher.jsonl holds transcripts of the pres"):
        labelling()
    record.unlink()
    labelling.calls()
    assert labelling() == ALL and labelling.calls() == (0, 0)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_label_selects_again_if_labelled_cuts_are_torn(labelling, capsys, share):
    labelling()
    content = labelling.target.read_bytes()
    labelling.target.write_bytes(content[: int(share * len(content))])
    labelling.calls()
    assert labelling() == ALL and labelling.calls() == (0, 0)
    assert "it is damaged; selecting again from" in capsys.readouterr().out


def test_label_refuses_folder_that_another_process_labels(labelling):
    with (
        lock_held(labelling.expdir),
        pytest.raises(UserError, match="labels: testing, process .* is using this folder"),
    ):
        labelling()
    assert labelling() == ALL


def test_label_warns_of_runs_with_other_teachers(labelling, tmp_path, capsys):
    conf = tmp_path / "conf.yaml"
    conf.write_text(
        f"base: {labelling.conf}\nruns: {{base_td_opd: {{teacher: {{name: echo, options: {{voice: deep}}}}}}}}\n"
    )
    labelling.conf = conf
    labelling("teacher.options.path=some/model")
    output = capsys.readouterr().out
    assert "warning: the clips are labelled by the teacher of the run base" in output
    assert "has another one (teacher.options.voice)" in output
