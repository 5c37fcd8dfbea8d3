"""The CTC head: greedy transcripts, and its file beside a model."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import student, waveform

from arkasr.errors import UserError
from arkasr.model.ctc_head import FILE, greedy_ctc, read_ctc_head, write_ctc_head


def with_head(seed: int = 0):
    lm = student(1)
    torch.manual_seed(seed)
    lm.add_ctc_head()
    return lm


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
    write_ctc_head(tmp_path / "final", {f"ctc_head.{name}": value for name, value in lm.ctc_head.state_dict().items()})
    assert load_file(tmp_path / "final" / FILE).keys() == {"weight", "bias"}
    assert not torch.equal(other.ctc_head.weight, lm.ctc_head.weight) and read_ctc_head(other, str(tmp_path / "final"))
    assert torch.equal(other.ctc_head.weight, lm.ctc_head.weight) and torch.equal(other.ctc_head.bias, lm.ctc_head.bias)


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
