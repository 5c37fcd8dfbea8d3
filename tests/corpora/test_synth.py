"""The synthetic corpora: layouts, seeds, and disjoint training and test sets."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from arkasr.corpora import download as download_module
from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.download import download
from arkasr.corpora.synthetic.grammar import group_of, sentences, vocabulary
from arkasr.corpora.synthetic.ogg import set_serial
from arkasr.corpora.synthetic.speakers import VARIANTS, make_speakers
from arkasr.corpora.synthetic.synth import ROLES
from arkasr.errors import UserError

EGS = Path(__file__).parents[2] / "egs"
SIZES = {
    "librispeech": "{train-clean-5: 6, dev-clean-2: 2, test-clean: 2, test-other: 2}",
    "aishell": "{train: 6, dev: 2, test: 2}",
    "wenetspeech": "{L: 8, M: 4, S: 2, DEV: 2, TEST_NET: 2, TEST_MEETING: 2}",
}


def tiny(folder: Path, name: str, seed: int = 1) -> str:
    """Write the corpus.yaml of a recipe with only a few sentences per part."""
    text = (EGS / name / "corpus.yaml").read_text()
    text = re.sub(r"^  seed: .*", f"  seed: {seed}", text, count=1, flags=re.M)
    text = re.sub(r"^  sizes: .*", f"  sizes: {SIZES[name]}", text, count=1, flags=re.M)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("language, low, high", [("English", 3, 8), ("Chinese", 4, 10)])
def test_sentence_groups_are_disjoint_and_large(language, low, high):
    drawn = {}
    for group in ("train", "dev", "test"):
        source = sentences(language, group, np.random.default_rng(0))
        drawn[group] = set(itertools.islice(source, 3000))
        assert all(group_of(words) == group for words in drawn[group])
    for one, other in itertools.combinations(drawn.values(), 2):
        assert not one & other
    assert len(drawn["train"]) > 1000
    units = ["".join(words) if language == "Chinese" else words for words in drawn["train"]]
    assert min(map(len, units)) >= low and max(map(len, units)) <= high
    used = {word for words in drawn["train"] for word in words}
    assert used == vocabulary(language)


@pytest.mark.parametrize(
    "recipe, language", [("librispeech", "English"), ("aishell", "Chinese"), ("wenet_speech", "Chinese")]
)
def test_training_and_test_speakers_are_disjoint(recipe, language):
    speakers_of = {role.part: make_speakers(language, role.people, role.first_number) for role in ROLES[recipe]}
    train = speakers_of.pop(ROLES[recipe][0].part)
    assert len(train) >= 16
    variants = {speaker.voice.name.split("+")[1] for speaker in train}
    numbers = {speaker.number for speaker in train}
    for speakers in speakers_of.values():
        assert not variants & {speaker.voice.name.split("+")[1] for speaker in speakers}
        assert not numbers & {speaker.number for speaker in speakers}
    assert all(role.sentences != "train" for role in ROLES[recipe][1:])


@pytest.mark.slow
def test_every_voice_exists_and_gives_speech():
    loader = pytest.importorskip("espeakng_loader")
    from arkasr.corpora.synthetic.speakers import ACCENTS
    from arkasr.corpora.synthetic.voices import Synthesizer, Voice

    files = {path.name: path for path in (Path(loader.get_data_path()) / "voices" / "!v").iterdir()}
    for name in itertools.chain(*VARIANTS.values()):
        assert "\nbreath" not in files[name].read_text(), f"{name} is not reproducible"
    with Synthesizer() as synthesizer:
        for accent in (*ACCENTS["English"], *ACCENTS["Chinese"]):
            text = "老师看书" if accent == "cmn" else "three red dogs run"
            samples = synthesizer.synthesise(text, Voice(accent, 150, 50, 50))
            assert samples.dtype == np.float32 and 8000 < len(samples) < 48000
            assert np.sqrt(np.mean(samples**2)) > 0.01 and np.abs(samples).max() <= 1.1
        with pytest.raises(ValueError, match="no voice 'nobody'"):
            synthesizer.synthesise("hello", Voice("nobody", 150, 50, 50))


def test_synthesizer_output_does_not_depend_on_earlier_texts():
    pytest.importorskip("espeakng_loader")
    from arkasr.corpora.synthetic.voices import Synthesizer, Voice

    def synthesised() -> np.ndarray:
        with Synthesizer() as synthesizer:
            return synthesizer.synthesise("seven red dogs", Voice("en-us+klatt2", 150, 50, 50))

    first = synthesised()
    with Synthesizer() as other:
        other.synthesise("five purple camels sing", Voice("en-us", 150, 50, 50))
        second = synthesised()
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_corpus_bytes_depend_on_the_seed_only(tmp_path, name):
    pytest.importorskip("espeakng_loader")
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        download(tiny(tmp_path, name, seed), "mini", str(tmp_path / folder))
    one, two, other = (contents(tmp_path / folder) for folder in "abc")
    assert one == two
    assert one.keys() == other.keys()
    audio = [path for path in one if path.endswith((".flac", ".wav", ".opus"))]
    assert audio and all(one[path] != other[path] for path in audio)
    for path in audio:
        samples, rate = soundfile.read(tmp_path / "a" / path)
        assert rate == 16000 and samples.ndim == 1
        assert np.sqrt(np.mean(samples**2)) > 0.005 and np.abs(samples).max() < 1


@pytest.mark.slow
def test_wenetspeech_subsets_are_nested_and_complete(tmp_path):
    pytest.importorskip("espeakng_loader")
    download(tiny(tmp_path, "wenetspeech"), "mini", str(tmp_path / "c"))
    audios = json.loads((tmp_path / "c" / "WenetSpeech.json").read_text())["audios"]
    subsets = [set(segment["subsets"]) for audio in audios for segment in audio["segments"]]
    count = {name: sum(name in each for each in subsets) for name in ("L", "M", "S", "DEV", "TEST_NET", "TEST_MEETING")}
    assert count == {"L": 8, "M": 4, "S": 2, "DEV": 2, "TEST_NET": 2, "TEST_MEETING": 2}
    assert all("M" in each for each in subsets if "S" in each) and all("L" in each for each in subsets if "M" in each)
    for audio in audios:
        assert soundfile.info(tmp_path / "c" / audio["path"]).frames == round(audio["duration"] * 16000)
        ends = [0.0] + [s["end_time"] for s in audio["segments"]]
        assert all(s["begin_time"] > end for s, end in zip(audio["segments"], ends))
        assert ends[-1] <= audio["duration"]


def test_download_keeps_a_complete_corpus_and_replaces_one_of_another_seed(tmp_path, capsys):
    pytest.importorskip("espeakng_loader")
    folder = tmp_path / "c"
    download(tiny(tmp_path, "aishell"), "mini", str(folder))
    (folder / "notes.txt").write_text("keep")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    download(tiny(tmp_path, "aishell"), "mini", str(folder))
    assert "already exists" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    download(tiny(tmp_path, "aishell", seed=2), "mini", str(folder))
    assert before != {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    assert (folder / "notes.txt").read_text() == "keep"


@pytest.mark.slow
def test_download_repeats_an_interrupted_synthesis(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    yaml, folder = tiny(tmp_path, "librispeech"), tmp_path / "c"

    real = download_module.WRITERS["librispeech"]

    def interrupted(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setitem(download_module.WRITERS, "librispeech", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(yaml, "mini", str(folder))
    assert not (folder / ".completed").exists() and not (folder / "train-clean-5").exists()
    monkeypatch.setitem(download_module.WRITERS, "librispeech", real)
    download(yaml, "mini", str(folder))
    assert (folder / ".completed").is_file() and not (folder / ".speaking").exists()
    assert len(list(folder.rglob("*.flac"))) == 12


def test_download_does_not_change_other_directories(tmp_path, capsys):
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds files other than"):
        download(tiny(tmp_path, "librispeech"), "mini", str(folder))
    assert contents(folder) == {"thesis.tex": b"x"}
    home = folder / "dev-clean" / "1" / "2"
    home.mkdir(parents=True)
    (home / "1-2.trans.txt").write_text("1-2-0000 HELLO\n")
    for scale in ("mini", "paper"):
        download(tiny(tmp_path, "librispeech"), scale, str(folder))
        assert "nothing to do" in capsys.readouterr().out


def test_missing_espeakng_loader_names_the_package_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"pip install 'arkasr\[mini\]'"):
        download(tiny(tmp_path, "librispeech"), "mini", str(tmp_path / "c"))


def test_wenetspeech_at_paper_scale_explains_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match="wenet.org.cn.*--corpus_dir"):
        download(str(EGS / "wenetspeech" / "corpus.yaml"), "paper", str(tmp_path / "c"))


@pytest.mark.parametrize("name, function", [("librispeech", "download_librispeech"), ("aishell", "download_aishell")])
def test_download_at_paper_scale_calls_lhotse(tmp_path, monkeypatch, name, function):
    import urllib.error

    import lhotse.recipes

    calls = []
    monkeypatch.setattr(lhotse.recipes, function, lambda *a, **k: calls.append((a, k)))
    yaml = EGS / name / "corpus.yaml"
    download(str(yaml), "paper", str(tmp_path / "c"))
    (arguments, options), facts = calls[0], read_corpus_yaml(yaml).scales.paper
    assert arguments == (tmp_path / "c",)
    assert options == ({} if name == "aishell" else {"dataset_parts": [*facts.train, *facts.dev, *facts.test]})

    def offline(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(lhotse.recipes, function, offline)
    with pytest.raises(UserError, match="no route to host.*run the same command again"):
        download(str(yaml), "paper", str(tmp_path / "c"))


def test_set_serial_keeps_the_audio_and_refuses_other_formats(tmp_path):
    samples = np.random.default_rng(0).standard_normal(32000).astype(np.float32) * 0.1
    files = [tmp_path / "a.opus", tmp_path / "b.opus"]
    for path in files:
        soundfile.write(path, samples, 16000, format="OGG", subtype="OPUS")
    before = soundfile.read(files[0])[0]
    for path in files:
        set_serial(path, 7)
    assert files[0].read_bytes() == files[1].read_bytes()
    np.testing.assert_array_equal(soundfile.read(files[0])[0], before)
    (tmp_path / "c.txt").write_text("no pages")
    with pytest.raises(ValueError, match="no Ogg page at byte 0"):
        set_serial(tmp_path / "c.txt", 7)
