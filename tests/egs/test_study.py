"""The study: its runs, their controls, and the commands of the recipe."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from recipes import EGS, commands, recipe

from arkasr.config.load import load_config, run_names
from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.synthetic.grammar import sentences, vocabulary
from arkasr.corpora.synthetic.synth import STUDY_ROLES
from arkasr.corpora.synthetic.writers import TEXT, TEXT_SENTENCES, write_librispeech
from arkasr.training.run_tokenizer import _new_tokenizer

RUNS = ["base", "base_steps", "base_audio", "base_td", "base_td_audio", "base_opd", "base_td_opd"]
RUNS += ["base_opd_labelled", "topline"]
CONF = EGS / "librispeech" / "conf" / "study.yaml"
DIGITS = EGS / "digits" / "conf" / "study.yaml"


def config(run, conf=CONF):
    return load_config(conf, run, "E", "D")


def test_configuration_has_the_runs_of_the_recipe():
    assert run_names(CONF) == ["teacher", *RUNS]
    lines = commands(recipe("--scale", "study", "--dry_run", "true"))
    trained = [line[line.index("--run") + 1] for line in lines if "train" in line]
    assert trained == ["teacher", *RUNS]
    verbs = [line[line.index("arkasr") + 1] for line in lines]
    assert verbs[:4] == ["download", "prepare", "train", "label"] and verbs[-2:] == ["decode", "score"]
    assert lines[-1][-1] == " ".join(["teacher", *RUNS])


def test_runs_start_where_they_should():
    starts = {run: config(run).model.path for run in RUNS}
    assert starts.pop("base") == ""
    assert starts.pop("base_td_opd") == starts.pop("base_td_audio") == "E/base_td/final"
    assert set(starts.values()) == {"E/base/final"}


@pytest.mark.parametrize("conf", [CONF, DIGITS])
def test_controls_match_opd_in_steps_and_in_seconds_of_audio(conf):
    opd = config("base_opd", conf)
    for run in ("base_steps", "base_audio", "base_td", "base_td_audio", "topline", "base_td_opd", "base_opd_labelled"):
        each = config(run, conf)
        assert (each.train.length, each.optim) == (opd.train.length, opd.optim), run
        assert each.model.dropout == opd.model.dropout, run
        expected = config("base", conf).data.max_seconds if run == "base_steps" else opd.data.max_seconds
        assert each.data.max_seconds == expected, run
    audio = {run: config(run, conf).data.train for run in RUNS}
    assert audio["base_td_audio"] == audio["base_td"] == "E/td_teacher.jsonl.gz"
    assert audio["topline"] == audio["base_opd"] == audio["base_td_opd"] == "D/opd.jsonl.gz"
    assert (
        audio["base_opd_labelled"] == audio["base_audio"] == audio["base_steps"] == audio["base"] == "D/base.jsonl.gz"
    )
    distilled = {run for run in RUNS if config(run, conf).objective == "opd"}
    assert distilled == {"base_opd", "base_td_opd", "base_opd_labelled"}


def test_base_and_teacher_end_early_and_keep_their_best_checkpoints():
    for run in ("teacher", "base"):
        train = config(run).train
        assert train.patience > 0 and train.final == "best" and train.average > 1
        assert config(run).augment.masks and config(run).augment.speeds
        assert train.ctc_weight > 0 and train.ctc_vocab_size == 100
    assert config("base").distill.top_k == 32
    assert config("teacher").data.train == "D/teacher.jsonl.gz"


@pytest.mark.parametrize(
    "words, message",
    [
        (["--variants", "topline"], "unknown run 'topline'"),
        (["--scale", "study", "--variants", "base_real"], "unknown run 'base_real'"),
    ],
)
def test_runs_of_the_study_need_its_scale(words, message):
    done = recipe("--dry_run", "true", *words)
    assert done.returncode == 2 and message in done.stderr


def test_parents_of_controls_are_trained_first():
    lines = commands(recipe("--scale", "study", "--variants", "base_steps topline", "--dry_run", "true"))
    assert [line[line.index("--run") + 1] for line in lines if "train" in line] == ["base", "base_steps", "topline"]


def test_digits_leave_two_speakers_out():
    assert run_names(DIGITS) == ["teacher", *RUNS]
    facts = read_corpus_yaml(EGS / "digits" / "corpus.yaml").scale("study")
    assert facts.left_out == {"new-speakers": ["103", "104"]}
    assert config("teacher", DIGITS).data.train == "D/train.jsonl.gz"  # it has no part of its own


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A data directory with the text without audio of the study."""
    data = tmp_path_factory.mktemp("study")
    (data / "corpus").mkdir()
    roles = STUDY_ROLES["librispeech"]
    seed = read_corpus_yaml(EGS / "librispeech" / "corpus.yaml").scale("study").miniature.seed
    write_librispeech(data / "corpus", "English", roles, dict.fromkeys((r.part for r in roles), 0), seed, lambda: None)
    return data


def test_text_without_audio_has_all_words_of_the_speech(text):
    lines = (text / "corpus" / TEXT).read_text().splitlines()
    words = {word for line in lines for word in line.split()}
    assert len(lines) == TEXT_SENTENCES == 8000 and all(lines)
    assert vocabulary("English", "study") < words <= vocabulary("English", "wide study") and len(words) > 1000


@pytest.mark.slow
def test_both_tokenizers_write_the_words_of_the_speech_as_single_tokens(text):
    """So the vocabularies are larger than what the corpus needs, and both models segment its sentences alike."""
    settings = [load_config(CONF, run, "E", str(text)) for run in ("base", "teacher")]
    assert [each.tokenizer.text for each in settings] == [f"{text}/corpus/{TEXT}"] * 2
    assert all(each.tokenizer.vocab_size >= 2000 for each in settings)
    student, teacher = (_new_tokenizer(each) for each in settings)
    for group in ("train", "test"):
        for words in islice(sentences("English", group, np.random.default_rng(0), "study"), 300):
            line = " ".join(words)
            ids = [tokenizer.encode(line, add_special_tokens=False) for tokenizer in (student, teacher)]
            segments = [[t.decode([i]) for i in found] for t, found in zip((student, teacher), ids, strict=True)]
            assert segments[0] == segments[1] == [words[0], *(f" {word}" for word in words[1:])], line
