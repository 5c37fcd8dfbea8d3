"""The evaluation-only recipes in egs/english, on made-up corpora in the layouts of the real ones."""

from __future__ import annotations

import gzip
import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse.recipes import prepare_ami, prepare_gigaspeech, prepare_voxpopuli

from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.download import download
from arkasr.corpora.prepare import prepare
from arkasr.data.audio import read_waveform
from arkasr.data.manifests import read_cuts
from arkasr.errors import UserError
from arkasr.evaluation.paper_numbers import CARD_COLUMNS
from arkasr.evaluation.results_io import read_corpus_facts

ENGLISH = Path(__file__).parents[2] / "egs" / "english"
RATE = 16_000


def tone(seconds: float, level: float) -> np.ndarray:
    """Return a constant, so that a clip's level tells which channel it is of."""
    return np.full(round(seconds * RATE), level, dtype=np.float32)


def prepared(yaml: Path, manifests: Path, datadir: Path) -> dict[str, tuple[str, float, float]]:
    """Run stage 1. Return text, duration and level of each test clip by id."""
    prepare(str(yaml), "paper", str(manifests), str(datadir), 1)
    cuts = read_cuts(str(datadir / "test.jsonl.gz"))
    return {
        cut.id: (cut.supervisions[0].text, round(cut.duration, 2), round(float(read_waveform(cut).mean()), 2))
        for cut in cuts
    }


def columns(datadir: Path) -> dict[str, str]:
    facts = read_corpus_facts(datadir)
    assert facts["test_sets"] == ["test"] and facts["sets"]["test"]["language"] == "English"
    return facts["paper"]


def write_ami(root: Path, meetings: dict[str, list[str]]) -> Path:
    """Write AMI with two speakers per meeting, on a headset each, and one segment of each from 1 to 3 s."""
    annotations = root / "ami_public_manual_1.6.2"
    for folder in ("corpusResources", "segments", "words"):
        (annotations / folder).mkdir(parents=True)
    listed = ""
    for meeting, texts in meetings.items():
        audio = root / "wav_db" / meeting / "audio"
        audio.mkdir(parents=True)
        speakers = ""
        for channel, (agent, text) in enumerate(zip("AB", texts)):
            soundfile.write(audio / f"{meeting}.Headset-{channel}.wav", tone(5, 0.1 * (channel + 1)), RATE)
            speakers += f'<speaker nxt_agent="{agent}" global_name="M{meeting}{agent}" channel="{channel}"/>'
            name = f"{meeting}.{agent}"
            segment = '<segment transcriber_start="1.0" transcriber_end="3.0"/>'
            (annotations / "segments" / f"{name}.segments.xml").write_text(f"<root>{segment}</root>")
            words, step = text.split(), 2.0 / len(text.split())
            times = [(1 + step * i, 1 + step * (i + 1)) for i in range(len(words))]
            spoken = "".join(
                f'<w starttime="{start}" endtime="{end}">{word}</w>' for word, (start, end) in zip(words, times)
            )
            (annotations / "words" / f"{name}.words.xml").write_text(f"<root>{spoken}</root>")
        listed += f'<meeting observation="{meeting}">{speakers}</meeting>'
    (annotations / "corpusResources" / "meetings.xml").write_text(f"<meetings>{listed}</meetings>")
    return root


def test_ami_reads_the_headset_of_each_speaker(tmp_path):
    meetings = {"ES2002a": ["good day", "hi"], "ES2011a": ["yes", "no"], "ES2004a": ["well we start", "okay then"]}
    prepare_ami(write_ami(tmp_path / "ami", meetings), output_dir=tmp_path / "out", partition="full-corpus-asr")
    clips = prepared(ENGLISH / "ami.yaml", tmp_path / "out", tmp_path / "data")
    assert clips == {"ES2004a-0-0": ("WELL WE START", 2.0, 0.1), "ES2004a-1-0": ("OKAY THEN", 2.0, 0.2)}
    assert columns(tmp_path / "data") == {"test": "AMI"}


def write_gigaspeech(root: Path) -> Path:
    """Write GigaSpeech.json and one recording with a spoken segment and one of music."""
    (root / "audio").mkdir(parents=True)
    soundfile.write(root / "audio" / "POD1.wav", tone(6, 0.3), RATE)
    texts = {"S0": "AS THEY'RE LEAVING <COMMA> SHE SAYS <PERIOD>", "S1": "<MUSIC>"}
    segments = [
        {"sid": f"POD1_{name}", "begin_time": 3.0 * i, "end_time": 3.0 * i + 2, "speaker": "N/A", "text_tn": text}
        for i, (name, text) in enumerate(texts.items())
    ]
    audio = {"aid": "POD1", "path": "audio/POD1.wav", "sample_rate": RATE, "channels": 1, "duration": 6.0}
    audio |= {"subsets": ["{TEST}"], "segments": segments}
    (root / "GigaSpeech.json").write_text(json.dumps({"audios": [audio]}))
    return root


class GigaSpeech:
    """The part of the package speechcolab that Lhotse's recipe uses, which reads GigaSpeech.json."""

    def __init__(self, root):
        self.gigaspeech_dataset_dir = Path(root)

    def audios(self, subset):
        audios = json.loads((self.gigaspeech_dataset_dir / "GigaSpeech.json").read_text())["audios"]
        return (audio for audio in audios if subset in audio["subsets"])


def test_gigaspeech_without_tags_and_without_clips_of_music(tmp_path, monkeypatch):
    module = types.ModuleType("speechcolab.datasets.gigaspeech")
    module.GigaSpeech = GigaSpeech
    for name in ("speechcolab", "speechcolab.datasets"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("lhotse.recipes.gigaspeech.is_module_available", lambda *names: True)
    prepare_gigaspeech(write_gigaspeech(tmp_path / "giga"), tmp_path / "out", dataset_parts="TEST")
    with pytest.raises(UserError, match="move either the cuts or the recordings"):
        prepare(str(ENGLISH / "gigaspeech.yaml"), "paper", str(tmp_path / "out"), str(tmp_path / "data"), 1)
    (tmp_path / "cuts").mkdir()
    (tmp_path / "out" / "gigaspeech_cuts_TEST.jsonl.gz").rename(tmp_path / "cuts" / "gigaspeech_cuts_TEST.jsonl.gz")
    clips = prepared(ENGLISH / "gigaspeech.yaml", tmp_path / "cuts", tmp_path / "data")
    assert clips == {"POD1-0-0": ("AS THEY'RE LEAVING SHE SAYS", 2.0, 0.3)}
    assert columns(tmp_path / "data") == {"test": "GigaSpeech"}
    assert sum(read_corpus_facts(tmp_path / "data")["sets"]["test"]["dropped"].values()) == 1


def test_voxpopuli_reads_segments_of_sessions(tmp_path):
    root, out = tmp_path / "vox", tmp_path / "out"
    folder = root / "raw_audios" / "original" / "2017"
    folder.mkdir(parents=True)
    (root / "raw_audios" / "en").symlink_to(root / "raw_audios" / "original")
    out.mkdir()
    rows = ["session_id|split|start_time|end_time|speaker_id|gender|normed_text|original_text"]
    for number, split in enumerate(("train", "dev", "test")):
        session = f"2017090{number}-0900-PLENARY-1-en"
        soundfile.write(folder / f"{session}_original.ogg", tone(4, 0.2), RATE)
        rows.append(f"{session}|{split}|0.5|2.5|7|female|thank you president|Thank you, President.")
    with gzip.open(out / "asr_en.tsv.gz", "wt") as stream:  # Lhotse would download it
        stream.write("\n".join(rows) + "\n")
    prepare_voxpopuli(root, out, lang="en")
    clips = prepared(ENGLISH / "voxpopuli.yaml", out, tmp_path / "data")
    [(name, (text, seconds, _))] = clips.items()
    assert (name, text, seconds) == ("20170902-0900-PLENARY-1-en-1", "thank you president", 2.0)
    assert columns(tmp_path / "data") == {"test": "VoxPopuli"}


@pytest.mark.slow  # datasets is imported
@pytest.mark.parametrize("name", ["earnings22", "spgispeech"])
def test_data_sets_of_the_hub_are_read_by_their_columns(tmp_path, name):
    """The columns are those of the data set on the Hub, which a test cannot reach. It is read from a folder."""
    datasets = pytest.importorskip("datasets")
    stream = io.BytesIO()
    soundfile.write(stream, tone(2, 0.25), RATE, format="WAV")
    row = {"audio": {"bytes": stream.getvalue(), "path": "x.wav"}, "dataset": name, "id": "7", "audio_length_s": 2.0}
    rows = datasets.Dataset.from_list([row | {"text": "We're up 5% in Q1."}])
    (tmp_path / "hub").mkdir()
    rows.cast_column("audio", datasets.Audio(decode=False)).to_parquet(tmp_path / "hub" / "test-00000-of-00001.parquet")
    text = (ENGLISH / f"{name}.yaml").read_text(encoding="utf-8")
    options = f"options: {{hub: hf-audio/esb-datasets-test-only-sorted, config: {name}}}\n"
    assert options in text
    (tmp_path / "corpus.yaml").write_text(text.replace(options, ""), encoding="utf-8")
    clips = prepared(tmp_path / "corpus.yaml", tmp_path / "hub", tmp_path / "data")
    assert list(clips.values()) == [("We're up 5% in Q1.", 2.0, 0.25)]


def test_recipes_cover_the_columns_of_the_card_and_say_how_to_obtain_audio(tmp_path):
    corpora = {path.stem: read_corpus_yaml(path) for path in sorted(ENGLISH.glob("*.yaml"))}
    named = [column for corpus in corpora.values() for column in corpus.scale("paper").test.values()]
    assert sorted(named) == sorted(CARD_COLUMNS)
    for name, corpus in corpora.items():
        assert corpus.name == name and not corpus.scale("paper").train and not corpus.scale("paper").dev
        text = (ENGLISH / f"{name}.yaml").read_text(encoding="utf-8")
        assert "Licence" in text
        if corpus.layout == "lhotse":
            with pytest.raises(UserError, match=rf"to obtain {name}, .*`lhotse prepare {name} .*--corpus_dir"):
                download(str(ENGLISH / f"{name}.yaml"), "paper", str(tmp_path / name))
        else:
            assert "https://huggingface.co/datasets/" in corpus.obtain
