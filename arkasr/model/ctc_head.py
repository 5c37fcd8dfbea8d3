"""The auxiliary CTC head: its file beside the final model, and greedy transcripts (Graves et al. 2006, section 3.2).

The head is no part of the exported model, so it has a file of its own. A run that starts from the folder and has a CTC
loss continues with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from arkasr.errors import UserError
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.model.weight_digests import check_digests
from arkasr.model.weight_files import tensor_shapes

FILE = "ctc_head.safetensors"
TOKENIZER = "ctc_tokenizer.json"  # the tokens of the head, if they are not those of the model


def write_ctc_head(folder: Path, state: Mapping[str, Tensor], tokenizer: Tokenizer | None = None) -> None:
    """Write the head of a model, if it has one.

    Args:
        folder: The folder of the model. It is created if it does not exist.
        state: Whole tensors by their names in the `SpeechLM`. Those of the head are `ctc_head.weight` and
            `ctc_head.bias`.
        tokenizer: The tokens of the head. None: those of the model.
    """
    own = {name.removeprefix("ctc_head."): value for name, value in state.items() if name.startswith("ctc_head.")}
    if own:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in own.items()}, folder / FILE, metadata={"format": "pt"})
    if own and tokenizer:
        tokenizer.save(str(folder / TOKENIZER))


def read_ctc_tokenizer(file: Path) -> Tokenizer | None:
    """Read the tokens of a head.

    Args:
        file: The file `TOKENIZER` of a folder.

    Returns:
        The tokenizer. None if there is no such file: the head has the tokens of the model.

    Raises:
        UserError: The file is damaged, or was changed after the head was written.
    """
    check_digests([file])
    if not file.is_file():
        return None
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises this class itself
        raise UserError(f"{file}: cannot be read as a tokenizer ({error}); copy the folder again") from error


@torch.no_grad()
def read_ctc_head(lm: SpeechLM, folder: str) -> bool:
    """Set the weights of the head to those in the folder of a model.

    Args:
        lm: The model, with a head. Its data type is kept.
        folder: A folder, or another path that has no head.

    Returns:
        Whether the folder has one.

    Raises:
        UserError: The file is damaged, or is the head of a model with other sizes.
    """
    file, head = Path(folder) / FILE, lm.ctc_head
    if head is None or not folder or not file.is_file():
        return False
    expected = {name: list(weight.shape) for name, weight in head.named_parameters()}
    if (found := tensor_shapes([file])) != expected:
        raise UserError(
            f"{file}: holds tensors of the shapes {found}, but the CTC head of this model has {expected}; copy the "
            "folder again, or delete the file to start with a fresh head"
        )
    check_digests([file])
    for name, value in load_file(file).items():
        if not value.isfinite().all():
            raise UserError(f"{file}: {name} holds NaN or infinite values; delete the file to start with a fresh head")
        head.get_parameter(name).copy_(value)
    return True


@torch.no_grad()
def greedy_ctc(lm: SpeechLM, waveforms: Sequence[Tensor]) -> list[str]:
    """Transcribe clips by the best class of each frame, without repeats and blanks.

    Args:
        lm: The model, with a head whose last class is the blank.
        waveforms: B tensors [num_samples] at 16 kHz.

    Returns:
        B texts.
    """
    head = lm.ctc_head
    assert head is not None
    texts = []
    for audio in lm.encode_audio(waveforms):
        best = head(audio).argmax(-1).tolist()
        texts.append(lm.ctc_text([i for i, _ in groupby(best) if i != head.out_features - 1]))
    return texts
