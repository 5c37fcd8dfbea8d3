"""The CTC head: its tokens, greedy transcripts, and its files beside a model."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TEXTS, ctc_tokens, student, waveform

from arkasr.errors import UserError
from arkasr.model.ctc_head import FILE, TOKENIZER, greedy_ctc, read_ctc_head, read_ctc_tokenizer, write_ctc_head
from arkasr.model.weight_digests import write_digests


def with_head(seed: int = 0, tokenizer=None):
    lm = student(1)
    torch.manual_seed(seed)
    lm.add_ctc_head(tokenizer)
    return lm


def head_state(lm) -> dict[str, torch.Tensor]:
    return {f"ctc_head.{name}": value for name, value in lm.ctc_head.state_dict().items()}


class Spelled(torch.nn.Module):
    """A head whose best classes are given, frame by frame, for one clip after the other."""

    def __init__(self, frames: list[list[int]], classes: int):
        super().__init__()
        self.frames, self.out_features = iter(frames), classes

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        best = next(self.frames)
        return torch.nn.functional.one_hot(torch.tensor(best), self.out_features).float()


def test_greedy_transcripts_drop_repeats_and_blanks():
    lm = with_head()
    see, saw = (lm.text_ids(text)[0] for text in ("she", "sea"))
    blank = lm.ctc_head.out_features - 1
    frames = [[see, see, blank, see, saw, saw], [blank, blank, saw, saw, saw, blank], [blank] * 6]
    lm.ctc_head = Spelled(frames, blank + 1)
    expected = [lm.text([see, see, saw]), lm.text([saw]), ""]
    assert greedy_ctc(lm, [waveform(8000, i) for i in range(3)]) == expected and expected[0] != expected[1]


def test_head_is_written_and_read(tmp_path):
    lm, other = with_head(1), with_head(2)
    write_ctc_head(tmp_path / "final", head_state(lm))
    assert [path.name for path in (tmp_path / "final").iterdir()] == [FILE]
    assert load_file(tmp_path / "final" / FILE).keys() == {"weight", "bias"}
    assert not torch.equal(other.ctc_head.weight, lm.ctc_head.weight) and read_ctc_head(other, str(tmp_path / "final"))
    assert torch.equal(other.ctc_head.weight, lm.ctc_head.weight) and torch.equal(other.ctc_head.bias, lm.ctc_head.bias)


def test_head_with_own_tokens_spells_with_them():
    tokens = ctc_tokens()
    lm = with_head(tokenizer=tokens)
    blank = tokens.get_vocab_size()
    assert lm.ctc_head.out_features == blank + 1 < len(lm.tokenizer)
    ids = lm.ctc_ids("sea shells")
    assert "".join(map(tokens.id_to_token, ids)).replace("\u2581", " ") == "sea shells" and ids != lm.text_ids(
        "sea shells"
    )
    assert len(ids) > len(lm.text_ids("sea shells")[:-1])  # shorter tokens
    frames = [frame for i in ids for frame in (i, i, blank)]
    lm.ctc_head = Spelled([frames, [blank] * 3, [blank, *tokens.encode(" the ").ids]], blank + 1)
    assert greedy_ctc(lm, [waveform(8000, i) for i in range(3)]) == ["sea shells", "", "the"]


@pytest.mark.parametrize("text", [*TEXTS[:7], "", "two  spaces", "caf\u00e9 \U0001f600"])
def test_own_tokens_return_every_text(text):
    lm = with_head(tokenizer=ctc_tokens())
    assert lm.ctc_text(lm.ctc_ids(text)) == text


def test_head_without_own_tokens_has_those_of_the_model():
    lm = with_head()
    assert lm.ctc_tokenizer is None and lm.ctc_ids(TEXTS[0]) == lm.text_ids(TEXTS[0])[:-1]
    assert lm.ctc_text(lm.ctc_ids(TEXTS[0])) == TEXTS[0] and lm.ctc_head.out_features == len(lm.tokenizer) + 1


def test_own_tokens_are_written_beside_the_head(tmp_path):
    tokens = ctc_tokens()
    write_ctc_head(tmp_path, head_state(with_head(1, tokens)), tokens)
    found = read_ctc_tokenizer(tmp_path / TOKENIZER)
    assert found.get_vocab() == tokens.get_vocab() and found.encode(TEXTS[0]).ids == tokens.encode(TEXTS[0]).ids
    assert read_ctc_head(with_head(2, found), str(tmp_path))
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / FILE))}: holds tensors of the shapes"):
        read_ctc_head(with_head(2), str(tmp_path))  # the model's tokens
    write_ctc_head(tmp_path / "none", dict(student(1).state_dict()), tokens)
    assert not (tmp_path / "none").exists() and read_ctc_tokenizer(tmp_path / "none" / TOKENIZER) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1.0"}'])
def test_damaged_tokens_are_named(tmp_path, content):
    file = tmp_path / TOKENIZER
    file.write_text(content)
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}: cannot be read as a tokenizer .*; copy the folder"):
        read_ctc_tokenizer(file)


def test_changed_and_missing_tokens_are_named(tmp_path):
    file = tmp_path / TOKENIZER
    ctc_tokens().save(str(file))
    write_digests(tmp_path)
    ctc_tokens(30).save(str(file))
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}: the file was changed or damaged"):
        read_ctc_tokenizer(file)
    file.unlink()
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}: missing, but SHA256SUMS lists it"):
        read_ctc_tokenizer(file)


def test_models_without_head_write_and_read_none(tmp_path):
    write_ctc_head(tmp_path / "none", dict(student(1).state_dict()))
    assert not (tmp_path / "none").exists()
    lm = with_head()
    before = lm.ctc_head.weight.clone()
    assert not any(read_ctc_head(lm, path) for path in ("", str(tmp_path), "owner/model"))
    assert torch.equal(lm.ctc_head.weight, before) and not read_ctc_head(student(1), str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda head: {**head, "bias": head["bias"][:-1]},
            "holds tensors of the shapes .*; copy the folder",
        ),
        (lambda head: {"weight": head["weight"]}, "holds tensors of the shapes"),
        (lambda head: {**head, "bias": head["bias"] / 0}, "bias holds NaN or infinite values; delete the file"),
    ],
)
def test_head_of_another_model_is_one_sentence(tmp_path, change, message):
    lm = with_head()
    save_file(change(lm.ctc_head.state_dict()), tmp_path / FILE)
    with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / FILE))}: {message}"):
        read_ctc_head(lm, str(tmp_path))


def test_head_has_the_data_type_of_the_adapter():
    lm = student(1)
    for weight in lm.parameters():
        weight.data = weight.data.bfloat16()
    lm.add_ctc_head()
    assert {p.dtype for p in lm.parameters()} == {torch.bfloat16}
