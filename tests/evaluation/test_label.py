"""Teacher labels of the TD subset: selection of clips, resumed and repeated labelling."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus_fixture import clips, cut_of, write_cuts
from lhotse import CutSet

from arkasr.cli import main
from arkasr.config.load import load_config
from arkasr.errors import UserError
from arkasr.evaluation.hypotheses import transcribe
from arkasr.evaluation.label import label
from arkasr.model.loading import load_speech_lm


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
    message = f"{len(with_words)} clips labelled by the teacher, {num_empty} left out (empty transcript)"
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "kept", "message"),
    [
        ("1.0", [0, 1, 2], "3 clips labelled by the teacher, 1 left out (empty transcript), 0 left out"),
        ("0.5", [0, 1], "2 clips labelled by the teacher, 1 left out (empty transcript), 1 left out"),
        ("0.49", [0], "1 clips labelled by the teacher, 1 left out (empty transcript), 2 left out"),
    ],
)
@pytest.mark.parametrize("metric", ["wer", "cer"])
def test_label_leaves_out_transcripts_above_max_error(
    conf, own_data, tmp_path, echo, capsys, limit, kept, message, metric
):
    """Error rates of 0 after normalisation, 0.5, and far above 1. The last transcript is empty."""
    facts = json.loads((own_data / "corpus.json").read_text())
    (own_data / "corpus.json").write_text(json.dumps(facts | {"metric": metric}))
    cuts = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    for cut, text in zip(cuts, ["One, two!", "ab cd", "x", "red"], strict=True):
        cut.supervisions[0].text = text
    CutSet.from_cuts(cuts).to_file(own_data / "td.jsonl.gz")
    half = "ab xy" if metric == "wer" else "ab cdxx"  # two of five characters: 0.4
    transcripts("one two", half, "so many other words", "")(cuts, tmp_path)
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo", f"teacher_data.max_error={limit}"])
    labelled = [cut.id for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")]
    if metric == "cer" and limit == "0.49":
        kept, message = [0, 1], "2 clips labelled"
    assert labelled == [cuts[i].id for i in kept] and message in capsys.readouterr().out


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
    with pytest.raises(UserError, match="all 3 clips with a transcript are above .*max_error=0.1; raise it"):
        label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo", "teacher_data.max_error=0.1"])


def test_label_replaces_labels_of_other_clips(conf, own_data, tmp_path, echo, capsys):
    others = [cut.with_id(f"old-{cut.id}") for cut in CutSet.from_file(own_data / "td.jsonl.gz")]
    CutSet.from_cuts(others).to_file(tmp_path / "td_teacher.jsonl.gz")
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])
    assert "transcripts not found, transcribing again" in capsys.readouterr().out
    assert not any(cut.id.startswith("old-") for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz"))


def test_label_resumes_partial_file(conf, own_data, tmp_path, echo):
    (cut, *others) = CutSet.from_file(own_data / "td.jsonl.gz")
    done = {"id": cut.id, "reference": "x", "hypothesis": "kept", "seconds": 1.0, "num_tokens": None, "stopped": None}
    (tmp_path / "td_teacher.jsonl.part").write_text(json.dumps(done) + '\n{"id": "' + others[0].id)
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])
    labelled = {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")}
    with_words = [c for c in others if c.num_samples >= 16000]
    assert labelled == {cut.id: "kept"} | {c.id: f"English {c.num_samples}" for c in with_words}


def test_label_rejects_only_empty_transcripts_and_can_be_repeated(conf, own_data, tmp_path, echo, capsys):
    source = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    CutSet.from_cuts(cut.truncate(duration=0.2) for cut in source).to_file(own_data / "td.jsonl.gz")
    words = ["label", str(conf), "--expdir", str(tmp_path), "--datadir", str(own_data), "teacher.name=echo"]
    assert main(words) == 2
    assert f"the teacher's transcripts of all {len(source)} clips are empty" in capsys.readouterr().err
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
        self.cuts = [cut_of(folder / f"c{i}.wav", np.zeros(sizes[i]), text) for i, text in enumerate(texts)]
        write_cuts(self.td, self.cuts)

    def __call__(self, *overrides: str, name: str = "echo") -> dict[str, str]:
        """Label and return the texts by id."""
        label(str(self.conf), str(self.expdir), str(self.datadir), [f"teacher.name={name}", *overrides])
        return {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(self.target)}

    @property
    def target(self) -> Path:
        return self.expdir / "td_teacher.jsonl.gz"

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.expdir.iterdir()}

    @staticmethod
    def calls() -> tuple[int, int]:
        """Return the numbers of created teachers and of transcribed clips since the last call."""
        teacher = sys.modules["fake_echo"]
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
    assert f"{labelling.target}: the clips or settings have changed; selecting again from" in capsys.readouterr().out
    # c1 and c2 have a rate of 1: two errors in two words, and one error in one word
    assert labelling("teacher_data.max_error=0.99") == {"c0": ALL["c0"]}
    assert labelling() == ALL and labelling.calls() == (0, 0)


@pytest.mark.slow
def test_label_removes_older_labels_if_no_clip_is_left(labelling):
    write_cuts(labelling.td, labelling.cuts[1:])
    few = labelling()
    with pytest.raises(UserError, match="max_error=0; raise it"):
        labelling("teacher_data.max_error=0")
    assert not labelling.target.exists()
    assert labelling() == few and labelling.calls() == (1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"metric": "cer"}, {"normalizer": "mandarin"}])
def test_label_selects_again_if_metric_or_normalizer_changes(labelling, capsys, change):
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
    new = [cut_of(tmp_path / f"new{i}.wav", np.zeros(30000 + i), "blue") for i in range(2)]
    write_cuts(labelling.td, [*labelling.cuts[1:], *new])
    labelling.calls()
    expected = {"c1": ALL["c1"], "c2": ALL["c2"], "new0": "English 30000", "new1": "English 30001"}
    assert labelling() == expected and labelling.calls() == (1, 2)
    write_cuts(labelling.td, labelling.cuts)
    assert labelling() == ALL and labelling.calls() == (0, 0)  # transcripts of clips outside the subset are kept


@pytest.mark.slow
def test_label_creates_no_teacher_for_unreadable_clips(labelling, tmp_path):
    labelling()
    gone = cut_of(tmp_path / "gone.wav", np.zeros(30000), "blue")
    (tmp_path / "gone.wav").unlink()
    write_cuts(labelling.td, [*labelling.cuts, gone])
    labelling.calls()
    assert labelling() == ALL and labelling.calls() == (0, 0)


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
        patch.setattr(CutSet, "to_file", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            labelling("teacher_data.max_error=0")
    assert labelling("teacher_data.max_error=0") == {"c0": ALL["c0"]}
    assert labelling.calls() == (1, 4)
