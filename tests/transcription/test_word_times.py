from __future__ import annotations

import pytest
import torch
from tiny import student, teacher
from tokenizers import Tokenizer, models, pre_tokenizers

from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE, Transcript
from arkasr.model.ctc_head import write_ctc_head
from arkasr.transcription.assembly import Assembly
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.settings import Settings
from arkasr.transcription.stream import Window
from arkasr.transcription.word_times import aligner_for, spellings

TONES = {"low": 300.0, "middle": 900.0, "high": 2500.0}  # Hz of each word


def tones(words: list[str], seed: int) -> tuple[torch.Tensor, list[tuple[float, float]]]:
    """Return a recording of words, each a tone, with silence of random lengths between, and the times of the words."""
    draw = torch.Generator().manual_seed(seed)
    parts, times, at = [], [], 0
    for word in words:
        silence, length = (8000 + torch.randint(8000, (2,), generator=draw)).tolist()
        tone = 0.3 * torch.sin(2 * torch.pi * TONES[word] / SAMPLE_RATE * torch.arange(length))
        parts += [torch.zeros(silence), tone]
        times.append(((at + silence) / SAMPLE_RATE, (at + silence + length) / SAMPLE_RATE))
        at += silence + length
    samples = torch.cat([*parts, torch.zeros(8000)])
    return samples + 0.003 * torch.randn(len(samples), generator=draw), times


def word_tokens() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(TONES)}, unk_token="low"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.fixture(scope="module")
def lm():
    """A model with random weights, whose CTC head is fitted to tell tones and silence apart."""
    model = student(0)
    model.add_ctc_head(word_tokens())
    rows, labels = [], []
    for seed in range(20):
        words = [list(TONES)[i] for i in torch.randint(3, (6,), generator=torch.Generator().manual_seed(seed)).tolist()]
        samples, times = tones(words, seed)
        with torch.no_grad():
            row = model.encode_audio([samples])[0]
        label, step = torch.full((len(row),), len(TONES)), len(samples) / SAMPLE_RATE / len(row)
        for word, (start, end) in zip(words, times):
            label[round(start / step) : round(end / step)] = list(TONES).index(word)
        rows.append(row)
        labels.append(label)
    x, y = torch.cat(rows), torch.nn.functional.one_hot(torch.cat(labels), len(TONES) + 1).float()
    mean, scale = x.mean(0), x.std(0)
    ones = torch.ones(len(x), 1)
    solved = torch.linalg.lstsq(torch.cat([(x - mean) / scale, ones], 1), 10 * y).solution
    with torch.no_grad():
        model.ctc_head.weight.copy_((solved[:-1] / scale[:, None]).T)
        model.ctc_head.bias.copy_(solved[-1] - mean / scale @ solved[:-1])
    return model


@pytest.mark.parametrize("own", [True, False])
def test_words_lie_where_they_are_spoken(lm, own, monkeypatch):
    words = ["low", "high", "high", "middle", "low", "middle"]
    samples, times = tones(words, 99)
    recognizer, settings = Recognizer("tones", lm), Settings(word_times=True)
    if not own:
        monkeypatch.setattr("arkasr.transcription.word_times._with_head", lambda folder, device: lm)
        recognizer, settings = Recognizer("other", student(1)), Settings(word_times=True, aligner="tones")
    text = " ".join(words) if own else "Low, high HIGH middle. Low middle!"
    assembly = Assembly(recognizer, settings, "English")
    assembly.add(Window(100.0, samples), Transcript(text))
    (segment,), notes = assembly.finish()
    assert notes == []
    assert [word.text for word in segment.words] == text.split()
    gaps = [
        gap
        for word, (start, end) in zip(segment.words, times)
        for gap in (abs(word.start - 100 - start), abs(word.end - 100 - end))
    ]
    assert max(gaps) < 0.2
    assert sum(gaps) / len(gaps) < 0.08


def test_words_of_windows_that_overlap_are_in_order(lm):
    words = ["low", "high", "middle", "low", "high", "middle", "middle", "low", "high", "low"]
    samples, times = tones(words, 7)
    assembly = Assembly(Recognizer("tones", lm), Settings(word_times=True), "English")
    first, second = int(times[6][1] * SAMPLE_RATE) + 2000, int(times[3][0] * SAMPLE_RATE) - 2000
    assembly.add(Window(0.0, samples[:first]), Transcript(" ".join(words[:7])))
    shared = (first - second) / SAMPLE_RATE
    assembly.add(Window(second / SAMPLE_RATE, samples[second:], shared), Transcript(" ".join(words[3:])))
    segments, _ = assembly.finish()
    found = [word for segment in segments for word in segment.words]
    assert [word.text for word in found] == words
    for word, (start, end) in zip(found, times):
        assert abs(word.start - start) < 0.2
        assert abs(word.end - end) < 0.2
    for segment in segments:
        assert all(segment.start <= word.start <= word.end <= segment.end for word in segment.words)


def test_a_text_that_is_too_long_has_segment_times_and_a_note(lm):
    assembly = Assembly(Recognizer("tones", lm), Settings(word_times=True), "English")
    assembly.add(Window(2.0, tones(["low"], 0)[0][:4000]), Transcript("low low low", stopped=True, looping=False))
    (segment,), notes = assembly.finish()
    assert segment.words == ()
    assert notes == ["2.00 to 2.25 s: words have no times, as there are too many to align"]


def test_spellings_have_letters_in_one_case():
    assert spellings(["It's", " 3.5,", "吧。"]) == [
        ["It's", " 3.5,", "吧。"],
        ["IT'S", " 35", "吧"],
        ["it's", " 35", "吧"],
    ]
    assert spellings(["A"]) == [["A"], ["a"]]


@pytest.mark.parametrize("where", ["own", "named"])
def test_a_head_is_read_from_the_folder_of_the_model(tmp_path, where):
    model = student(2)
    model.add_ctc_head(word_tokens())
    model.save(tmp_path)
    state = {f"ctc_head.{name}": value for name, value in model.ctc_head.state_dict().items()}
    write_ctc_head(tmp_path, state, word_tokens())
    recognizer = Recognizer.load(str(tmp_path), device="cpu") if where == "own" else Recognizer("m", student(1))
    aligner = aligner_for(recognizer, Settings(word_times=True, aligner="" if where == "own" else str(tmp_path)))
    samples = tones(["low", "high"], 0)[0]
    scores = model.ctc_head(model.encode_audio([samples])[0])
    assert torch.allclose(aligner._lm.ctc_head(aligner._lm.encode_audio([samples])[0]), scores, atol=1e-5)
    assert len(aligner.times(samples, ["low", "high"], True)) == 2


def test_word_times_without_a_head_are_an_error(tmp_path):
    teacher(0).save(tmp_path)
    with pytest.raises(UserError, match="word_times: the model m has no CTC head.*name a folder that has one"):
        aligner_for(Recognizer("m", student(1)), Settings(word_times=True))
    with pytest.raises(UserError, match=f"aligner {tmp_path}: holds no CTC head"):
        aligner_for(Recognizer("m", student(1)), Settings(word_times=True, aligner=str(tmp_path)))
    with pytest.raises(UserError, match="nowhere: no config.json"):
        aligner_for(Recognizer("m", student(1)), Settings(word_times=True, aligner="nowhere"))
    assert aligner_for(Recognizer("m", student(1)), Settings()) is None
