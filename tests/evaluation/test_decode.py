"""Hypotheses of runs and teachers, carried on after a cut, and the teacher's labels of the TD subset."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus_fixture import clips, cut_of, write_cuts
from lhotse import CutSet

from arkasr.cli import main
from arkasr.config.load import dump_config, load_config, read_config
from arkasr.errors import UserError
from arkasr.evaluation import decode as decode_module
from arkasr.evaluation.decode import decode
from arkasr.evaluation.hypotheses import transcribe
from arkasr.evaluation.label import label
from arkasr.model.loading import load_speech_lm
from arkasr.plugins import registry

SIZES = {"test-a": 5, "test-b": 3}
ECHO = '''
"""A teacher that tells the length of what it hears, and is silent on clips below a second."""
from dataclasses import dataclass
import arkasr

MADE, HEARD = [], []

@dataclass
class Options:
    path: str = ""
    voice: str = ""

class Echo:
    tokenizer, stop_ids = None, [0]
    def __init__(self, options, device):
        MADE.append(options)
    def transcribe(self, waveforms, languages):
        HEARD.extend(len(w) for w in waveforms)
        return [f"{lang} {len(w)}" if len(w) >= 16000 else "" for w, lang in zip(waveforms, languages, strict=True)]
    def score(self, waveforms, languages, token_ids):
        raise RuntimeError("is not asked for scores")

@arkasr.hookimpl
def register_teachers(register):
    register("echo", Echo, Options)
    register("echo_again", Echo, Options)
'''


@pytest.fixture
def expdir(trained, tmp_path):
    """Return an experiment directory with a base that is trained."""
    folder = tmp_path / "exp"
    shutil.copytree(trained / "base", folder / "base", ignore=shutil.ignore_patterns("checkpoints"))
    return folder


@pytest.fixture
def own_data(datadir, tmp_path):
    """Return a copy of the data directory that may be written into; the audio stays where it is."""
    return Path(shutil.copytree(datadir, tmp_path / "data", ignore=shutil.ignore_patterns("audio")))


@pytest.fixture
def echo(tmp_path, monkeypatch):
    """Install a package with the teacher `echo`."""
    (tmp_path / "echo-1.0.dist-info").mkdir()
    (tmp_path / "echo-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: echo\nVersion: 1.0\n")
    (tmp_path / "echo-1.0.dist-info" / "entry_points.txt").write_text("[arkasr]\necho = fake_echo\n")
    (tmp_path / "fake_echo.py").write_text(ECHO)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()
    sys.modules.pop("fake_echo", None)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


# A run


def test_every_clip_of_every_test_set_gets_its_row(expdir, datadir):
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
        for place in range(size):  # each clip alone is heard as in its batch
            batch = clips(datadir / f"{name}.jsonl.gz", [place])
            assert transcribe(lm, batch, settings)[0] in found
    assert any(row["hypothesis"] for row in found)


def test_loops_and_cuts_are_counted_in_the_log(expdir, datadir, capsys):
    decode(str(expdir), str(datadir), ["base"])
    said = capsys.readouterr().out
    for name, size in SIZES.items():
        target = expdir / "base" / "decode" / f"{name}.jsonl"
        looping, stopped = ([row[key] for row in rows(target)] for key in ("looping", "stopped"))
        assert f"{target}: {size} clips, {sum(looping)} looping, {size - sum(stopped)} cut at the cap" in said


def test_what_is_transcribed_is_kept(expdir, datadir, capsys):
    decode(str(expdir), str(datadir), ["base"])
    before = {path: path.stat().st_mtime_ns for path in (expdir / "base" / "decode").iterdir()}
    shutil.rmtree(expdir / "base" / "final")  # nor is the model asked for again
    capsys.readouterr()
    decode(str(expdir), str(datadir), ["base"])
    assert capsys.readouterr().out.count("already there") == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("cut", ['{"id": "test-a-04", "refer', "", None])
def test_a_transcription_that_was_cut_off_is_carried_on(expdir, datadir, cut):
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
    assert found[:2] == kept  # not done again
    by_id = {row["id"]: row for row in whole[2:]}
    assert {row["id"]: row for row in found[2:]} == by_id and len(found) == 5
    assert not target.with_name("test-a.jsonl.part").exists()


def test_cut_off_for_real_it_ends_as_if_it_had_not_been(expdir, datadir, monkeypatch):
    transcribed = []

    def cut_off(lm, batch, settings):
        transcribed.append(batch.ids)
        if len(transcribed) == 3:
            raise KeyboardInterrupt
        return transcribe(lm, batch, settings)

    config = read_config(expdir / "base" / "config.yaml")
    config.decode.max_seconds = 0.1  # a clip at a time
    dump_config(config, expdir / "base" / "config.yaml")
    with monkeypatch.context() as patch:
        patch.setattr(decode_module, "transcribe", cut_off)
        with pytest.raises(KeyboardInterrupt):
            decode(str(expdir), str(datadir), ["base"])
        target = expdir / "base" / "decode" / "test-a.jsonl"
        assert not target.exists() and [row["id"] for row in rows(target.with_name("test-a.jsonl.part"))] == [
            name for (name,) in transcribed[:2]
        ]
        decode(str(expdir), str(datadir), ["base"])
    names = [name for (name,) in transcribed]
    assert names[2] == names[3] and len(names) == 5 + 3 + 1  # only the clip that was being heard is heard twice
    assert len(rows(target)) == 5


def test_a_clip_that_cannot_be_read_is_named_and_left_out(expdir, own_data, tmp_path, capsys):
    cuts = list(CutSet.from_file(own_data / "test-a.jsonl.gz"))
    cuts[2].recording.sources[0].source = str(tmp_path / "absent.wav")
    CutSet.from_cuts(cuts).to_file(own_data / "test-a.jsonl.gz")
    decode(str(expdir), str(own_data), ["base"])
    found = {row["id"] for row in rows(expdir / "base" / "decode" / "test-a.jsonl")}
    assert found == {cut.id for cut in cuts} - {cuts[2].id}
    assert f"dropped {cuts[2].id} ({tmp_path / 'absent.wav'})" in capsys.readouterr().out


@pytest.mark.parametrize(
    "runs, said",
    [
        (["nobody"], "nobody: no such run (no config.yaml); train it with --stage 3"),
        (["half"], "half/final: no trained model here; run the recipe with --stage 3 first"),
        (["teacher"], "no distilled run names a teacher to decode with"),
    ],
)
def test_runs_that_are_not_there(expdir, datadir, capsys, runs, said):
    (expdir / "half").mkdir()
    shutil.copy(expdir / "base" / "config.yaml", expdir / "half")
    assert main(["decode", "--expdir", str(expdir), "--datadir", str(datadir), "--runs", *runs]) == 2
    assert said in capsys.readouterr().err


# The teacher


def as_taught_by_echo(conf, expdir, datadir) -> None:
    (expdir / "base_opd").mkdir()
    config = load_config(conf, "base_opd", str(expdir), str(datadir), ["teacher.name=echo"])
    dump_config(config, expdir / "base_opd" / "config.yaml")


def test_the_teacher_is_the_plugin_that_a_distilled_run_names(conf, expdir, datadir, echo):
    as_taught_by_echo(conf, expdir, datadir)
    decode(str(expdir), str(datadir), ["teacher"])
    for name, size in SIZES.items():
        found = rows(expdir / "teacher" / "decode" / f"{name}.jsonl")
        assert len(found) == size
        for row in found:
            samples = round(row["seconds"] * 16000)
            assert row["hypothesis"] == (f"English {samples}" if samples >= 16000 else "")
            assert row["num_tokens"] is None and row["stopped"] is None


def test_the_built_in_teacher_transcribes_as_its_own_run_does(conf, trained, datadir, tmp_path):
    shutil.copytree(trained / "teacher", tmp_path / "teacher")
    config = load_config(conf, "base_opd", str(tmp_path), str(datadir))
    (tmp_path / "base_opd").mkdir()
    dump_config(config, tmp_path / "base_opd" / "config.yaml")
    decode(str(tmp_path), str(datadir), ["teacher"])
    found = {row["id"]: row["hypothesis"] for row in rows(tmp_path / "teacher" / "decode" / "test-a.jsonl")}
    lm = load_speech_lm(str(trained / "teacher" / "final"))
    expected = transcribe(lm, clips(datadir / "test-a.jsonl.gz"), config.decode)
    assert found == {row["id"]: row["hypothesis"] for row in expected} and any(found.values())


def test_labels_replace_the_text_and_keep_the_reference(conf, own_data, tmp_path, capsys, echo):
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])
    source = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    made = {cut.id: cut for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")}
    heard = [cut for cut in source if cut.num_samples >= 16000]
    assert 0 < len(heard) < len(source) and list(made) == [cut.id for cut in heard]
    for cut in heard:
        supervision = made[cut.id].supervisions[0]
        assert supervision.text == f"English {cut.num_samples}"
        assert supervision.custom["reference"] == cut.supervisions[0].text
        assert made[cut.id].recording.sources[0].source == cut.recording.sources[0].source
    said = f"{len(heard)} clips labelled by the teacher, {len(source) - len(heard)} left out (no words heard)"
    assert said in capsys.readouterr().out
    files = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*td_teacher*")}
    assert files.keys() == {"td_teacher.jsonl.gz", "td_teacher.jsonl", "td_teacher.json"}
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])
    assert "td_teacher.jsonl.gz: already there" in capsys.readouterr().out
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*td_teacher*")} == files


def words(*texts):
    """Return what writes these transcripts of some cuts as a partial file of the teacher's that label carries on."""
    return lambda cuts, folder: (folder / "td_teacher.jsonl.part").write_text(
        "".join(json.dumps({"id": cut.id, "hypothesis": text}) + "\n" for cut, text in zip(cuts, texts, strict=True))
    )


@pytest.mark.parametrize(
    ("limit", "kept", "said"),
    [
        ("1.0", [0, 1, 2], "3 clips labelled by the teacher, 1 left out (no words heard), 0 left out"),
        ("0.5", [0, 1], "2 clips labelled by the teacher, 1 left out (no words heard), 1 left out"),
        ("0.49", [0], "1 clips labelled by the teacher, 1 left out (no words heard), 2 left out"),
    ],
)
@pytest.mark.parametrize("metric", ["wer", "cer"])
def test_transcripts_that_are_far_from_the_reference_are_left_out(
    conf, own_data, tmp_path, echo, capsys, limit, kept, said, metric
):
    """Rates of 0 after normalising, of a half, and far above 1; the last clip is silence to the teacher."""
    facts = json.loads((own_data / "corpus.json").read_text())
    (own_data / "corpus.json").write_text(json.dumps(facts | {"metric": metric}))
    cuts = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    for cut, text in zip(cuts, ["One, two!", "ab cd", "x", "red"], strict=True):
        cut.supervisions[0].text = text
    CutSet.from_cuts(cuts).to_file(own_data / "td.jsonl.gz")
    half = "ab xy" if metric == "wer" else "ab cdxx"  # two of five characters: 0.4
    words("one two", half, "so many other words", "")(cuts, tmp_path)
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo", f"teacher_data.max_error={limit}"])
    made = [cut.id for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")]
    if metric == "cer" and limit == "0.49":
        kept, said = [0, 1], "2 clips labelled"
    assert made == [cuts[i].id for i in kept] and said in capsys.readouterr().out


def test_clips_without_a_reference_are_kept(conf, own_data, tmp_path, echo):
    cuts = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    for cut, text in zip(cuts, ["", "...", "red", "blue"], strict=True):
        cut.supervisions[0].text = text
    CutSet.from_cuts(cuts).to_file(own_data / "td.jsonl.gz")
    words("one", "two", "red", "green")(cuts, tmp_path)
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo", "teacher_data.max_error=0"])
    made = [cut.id for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")]
    assert made == [cut.id for cut in cuts[:3]]


def test_a_limit_that_leaves_nothing_is_an_error(conf, own_data, tmp_path, echo):
    cuts = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    words("q", "q", "q", "")(cuts, tmp_path)
    with pytest.raises(
        UserError, match="all 3 clips in which the teacher hears words are above .*max_error=0.1; raise it"
    ):
        label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo", "teacher_data.max_error=0.1"])


def test_labels_of_other_clips_are_made_anew(conf, own_data, tmp_path, echo, capsys):
    others = [cut.with_id(f"old-{cut.id}") for cut in CutSet.from_file(own_data / "td.jsonl.gz")]
    CutSet.from_cuts(others).to_file(tmp_path / "td_teacher.jsonl.gz")
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])
    assert "the teacher is asked anew" in capsys.readouterr().out
    assert not any(cut.id.startswith("old-") for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz"))


def test_labelling_is_carried_on(conf, own_data, tmp_path, echo):
    (cut, *others) = CutSet.from_file(own_data / "td.jsonl.gz")
    done = {"id": cut.id, "reference": "x", "hypothesis": "kept", "seconds": 1.0, "num_tokens": None, "stopped": None}
    (tmp_path / "td_teacher.jsonl.part").write_text(json.dumps(done) + '\n{"id": "' + others[0].id)
    label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])
    made = {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")}
    heard = [c for c in others if c.num_samples >= 16000]
    assert made == {cut.id: "kept"} | {c.id: f"English {c.num_samples}" for c in heard}


def test_a_teacher_that_hears_nothing_is_an_error_and_may_be_asked_again(conf, own_data, tmp_path, echo, capsys):
    source = list(CutSet.from_file(own_data / "td.jsonl.gz"))
    CutSet.from_cuts(cut.truncate(duration=0.2) for cut in source).to_file(own_data / "td.jsonl.gz")
    words = ["label", str(conf), "--expdir", str(tmp_path), "--datadir", str(own_data), "teacher.name=echo"]
    assert main(words) == 2
    assert f"the teacher heard no words in any of its {len(source)} clips" in capsys.readouterr().err
    CutSet.from_cuts(source).to_file(own_data / "td.jsonl.gz")
    assert main(words) == 0 and (tmp_path / "td_teacher.jsonl.gz").is_file()


def test_labels_by_the_built_in_teacher(conf, trained, own_data, tmp_path):
    (tmp_path / "teacher").symlink_to(trained / "teacher")
    label(str(conf), str(tmp_path), str(own_data), [])
    lm = load_speech_lm(str(trained / "teacher" / "final"))
    settings = load_config(conf, "base_opd", str(trained), str(own_data)).decode
    expected = {r["id"]: r["hypothesis"] for r in transcribe(lm, clips(own_data / "td.jsonl.gz"), settings)}
    made = {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(tmp_path / "td_teacher.jsonl.gz")}
    assert made == {name: text for name, text in expected.items() if text} and made


def test_nothing_to_label_is_said(conf, own_data, tmp_path, echo):
    (own_data / "td.jsonl.gz").unlink()
    with pytest.raises(UserError, match="td.jsonl.gz: no such manifest; run the recipe from --stage 1"):
        label(str(conf), str(tmp_path), str(own_data), ["teacher.name=echo"])


# Labelling again


class Labelling:
    """Calls of `label` on four clips; the fourth is silence to the echo. Without another name the teacher is `echo`."""

    def __init__(self, conf: Path, datadir: Path, folder: Path):
        self.conf, self.datadir, self.expdir, self.td = conf, datadir, folder / "labels", datadir / "td.jsonl.gz"
        texts = ["English 20000", "other words", "English", "red"]
        sizes = [20000, 20001, 20002, 800]
        self.cuts = [cut_of(folder / f"c{i}.wav", np.zeros(sizes[i]), text) for i, text in enumerate(texts)]
        write_cuts(self.td, self.cuts)

    def __call__(self, *overrides: str, name: str = "echo") -> dict[str, str]:
        """Label, and return the texts by id."""
        label(str(self.conf), str(self.expdir), str(self.datadir), [f"teacher.name={name}", *overrides])
        return {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(self.target)}

    @property
    def target(self) -> Path:
        return self.expdir / "td_teacher.jsonl.gz"

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.expdir.iterdir()}

    @staticmethod
    def asked() -> tuple[int, int]:
        """Return how many teachers were made and how many clips were heard, and begin to count anew."""
        teacher = sys.modules["fake_echo"]
        counts = len(teacher.MADE), len(teacher.HEARD)
        teacher.MADE.clear()
        teacher.HEARD.clear()
        return counts


ALL = {f"c{i}": f"English 2000{i}" for i in range(3)}


@pytest.fixture
def labelling(conf, own_data, tmp_path, echo) -> Labelling:
    return Labelling(conf, own_data, tmp_path)


def test_another_limit_chooses_among_the_same_transcripts(labelling, capsys):
    assert labelling() == ALL and labelling.asked() == (1, 4)
    assert labelling("teacher_data.max_error=0") == {"c0": ALL["c0"]}
    assert labelling("teacher_data.max_error=0.5") == {"c0": ALL["c0"]}
    assert f"{labelling.target}: made of other clips or settings; is made anew from" in capsys.readouterr().out
    assert labelling("teacher_data.max_error=0.99") == {"c0": ALL["c0"]}  # two errors in two words, one in one: both 1
    assert labelling() == ALL and labelling.asked() == (0, 0)


def test_a_limit_that_leaves_nothing_leaves_no_older_labels(labelling):
    write_cuts(labelling.td, labelling.cuts[1:])
    few = labelling()
    with pytest.raises(UserError, match="max_error=0; raise it"):
        labelling("teacher_data.max_error=0")
    assert not labelling.target.exists()
    assert labelling() == few and labelling.asked() == (1, 3)


@pytest.mark.parametrize("change", [{"metric": "cer"}, {"normalizer": "mandarin"}])
def test_errors_that_are_counted_otherwise_choose_anew(labelling, capsys, change):
    facts = json.loads((labelling.datadir / "corpus.json").read_text())
    labelling("teacher_data.max_error=0.5")
    (labelling.datadir / "corpus.json").write_text(json.dumps(facts | change))
    for said in ("is made anew from", "td_teacher.jsonl.gz: already there"):
        capsys.readouterr()
        labelling("teacher_data.max_error=0.5")
        assert said in capsys.readouterr().out
    assert labelling.asked() == (1, 4)


def test_only_new_clips_are_transcribed(labelling, tmp_path):
    labelling()
    new = [cut_of(tmp_path / f"new{i}.wav", np.zeros(30000 + i), "blue") for i in range(2)]
    write_cuts(labelling.td, [*labelling.cuts[1:], *new])
    labelling.asked()
    expected = {"c1": ALL["c1"], "c2": ALL["c2"], "new0": "English 30000", "new1": "English 30001"}
    assert labelling() == expected and labelling.asked() == (1, 2)
    write_cuts(labelling.td, labelling.cuts)
    assert labelling() == ALL and labelling.asked() == (0, 0)  # what left the subset was not forgotten


def test_clips_that_cannot_be_read_need_no_teacher(labelling, tmp_path):
    labelling()
    gone = cut_of(tmp_path / "gone.wav", np.zeros(30000), "blue")
    (tmp_path / "gone.wav").unlink()
    write_cuts(labelling.td, [*labelling.cuts, gone])
    labelling.asked()
    assert labelling() == ALL and labelling.asked() == (0, 0)


def test_a_mended_reference_is_the_one_that_counts(labelling):
    labelling("teacher_data.max_error=0")
    labelling.cuts[1].supervisions[0].text = "english 20001"
    write_cuts(labelling.td, labelling.cuts)
    assert labelling("teacher_data.max_error=0") == {"c0": ALL["c0"], "c1": ALL["c1"]}


def weights(folder: Path, place: int) -> Path:
    """Write a model of 3 MB that differs from others by a tenth of its bytes, from `place` on."""
    folder.mkdir(exist_ok=True)
    data = bytearray(3_000_000)
    data[place : place + 300_000] = b"x" * 300_000
    (folder / "model.safetensors").write_bytes(data)
    return folder


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("echo_again", ["path={model}"], "teacher.name"),
        ("echo", ["path={model}", "voice=deep"], "teacher.options.voice"),
        ("echo", ["path=some/model"], "teacher.options.path"),
        ("echo", ["path={other}"], "other weights in teacher.options.path"),
        ("echo_again", [], "teacher.name, teacher.options.path"),
    ],
)
def test_transcripts_of_another_teacher_are_refused_until_they_are_deleted(
    labelling, tmp_path, name, options, said, finished
):
    folders = {"model": weights(tmp_path / "model", 500_000), "other": weights(tmp_path / "other", 1_500_000)}
    labelling(f"teacher.options.path={folders['model']}")
    transcripts = labelling.expdir / "td_teacher.jsonl"
    if not finished:
        labelling.target.unlink()
        transcripts = transcripts.rename(labelling.expdir / "td_teacher.jsonl.part")
    before, words = labelling.files(), [f"teacher.options.{option}".format(**folders) for option in options]
    labelling.asked()
    with pytest.raises(UserError) as refusal:
        labelling(*words, name=name)
    assert str(refusal.value).startswith(f"{transcripts}: transcripts of another teacher ({said}): take the change")
    assert labelling.files() == before and labelling.asked() == (0, 0)
    transcripts.unlink()
    assert labelling(*words, name=name) == ALL and labelling.asked() == (1, 4)


def test_a_teacher_trained_on_is_another_and_one_that_moved_is_not(labelling, tmp_path, capsys):
    model = weights(tmp_path / "model", 500_000)
    labelling(f"teacher.options.path={model}")
    moved = model.rename(tmp_path / "moved")
    (moved / "README.md").write_text("what it is")
    capsys.readouterr()
    labelling(f"teacher.options.path={moved}")
    assert "already there" in capsys.readouterr().out
    weights(moved, 2_000_000)
    with pytest.raises(UserError, match="other weights in teacher.options.path"):
        labelling(f"teacher.options.path={moved}")
    shutil.rmtree(moved)  # what is labelled needs no teacher any more
    labelling(f"teacher.options.path={model}")
    assert "already there" in capsys.readouterr().out and labelling.asked() == (1, 4)


def test_a_teacher_that_could_not_be_made_leaves_nothing_to_refuse(labelling):
    with pytest.raises(UserError, match="no teacher is called 'ecko'"):
        labelling(name="ecko")
    assert labelling() == ALL


def test_labels_of_unknown_origin_are_made_anew(labelling, capsys):
    labelling.expdir.mkdir()
    write_cuts(labelling.target, labelling.cuts[:2])
    assert labelling() == ALL
    assert "its transcripts are gone, so the teacher is asked anew" in capsys.readouterr().out


def test_cut_off_before_the_cuts_were_written_the_teacher_is_not_asked_again(labelling, monkeypatch):
    labelling()
    with monkeypatch.context() as patch:
        patch.setattr(CutSet, "to_file", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            labelling("teacher_data.max_error=0")
    assert labelling("teacher_data.max_error=0") == {"c0": ALL["c0"]}
    assert labelling.asked() == (1, 4)
