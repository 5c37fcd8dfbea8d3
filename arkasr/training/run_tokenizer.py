"""The tokenizers of one run: that of a fresh model, and that of a CTC head."""

from __future__ import annotations

import gzip
import shutil
import zlib
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from arkasr.config.schema import Config
from arkasr.data.checks import Rules
from arkasr.data.manifests import read_cuts
from arkasr.errors import UserError
from arkasr.model import build, tokenization, train_tokenizer
from arkasr.model.ctc_head import FILE as CTC_HEAD
from arkasr.model.ctc_head import TOKENIZER as CTC_TOKENIZER
from arkasr.model.ctc_head import read_ctc_tokenizer
from arkasr.model.reading import load_tokenizer
from arkasr.training.ranks import Ranks
from arkasr.utils.console import log
from arkasr.utils.files import publish, write_text


def run_tokenizer(config: Config, folder: Path, ranks: Ranks) -> PreTrainedTokenizerBase:
    """Create the run's tokenizer on rank 0 if it does not exist, and load it on all ranks.

    Args:
        config: The run's configuration.
        folder: The run's directory.
        ranks: The processes of the run.

    Returns:
        The tokenizer.

    Raises:
        UserError: It cannot be read, or there is no text to train it on.
    """
    path = folder / "tokenizer"
    if ranks.first and not path.is_dir():
        temporary = folder / "writing-tokenizer"
        shutil.rmtree(temporary, ignore_errors=True)
        _new_tokenizer(config).save_pretrained(temporary)
        publish(temporary, path)
    ranks.barrier()
    try:
        return load_tokenizer(str(path))
    except UserError as error:
        raise UserError(
            f"{str(error).partition(';')[0]}; copy the files of a checkpoint's folder `model` to {path}, or delete "
            f"{folder} to train from step 0"
        ) from error


def ctc_tokenizer(config: Config, folder: Path, ranks: Ranks) -> Tokenizer | None:
    """Return the tokens of the CTC head: those of the head that the run continues, or new ones from rank 0.

    Args:
        config: The run's configuration.
        folder: The run's directory.
        ranks: The processes of the run.

    Returns:
        The tokenizer. None: the head has the tokens of the model.

    Raises:
        UserError: It cannot be read, or there is no text to train it on.
    """
    parent, path = Path(config.model.path), folder / CTC_TOKENIZER
    if config.model.path and (parent / CTC_HEAD).is_file():
        return read_ctc_tokenizer(parent / CTC_TOKENIZER)
    if not config.train.ctc_vocab_size:
        return None
    if ranks.first and not path.is_file():
        texts = _transcripts(config)
        backend = train_tokenizer.train_sentencepiece(texts, config.train.ctc_vocab_size).backend_tokenizer
        write_text(path, backend.to_str())
    ranks.barrier()
    try:
        found = read_ctc_tokenizer(path)
    except UserError as error:
        raise UserError(
            f"{str(error).partition(';')[0]}; delete it to learn the same tokens again from tokenizer.text"
        ) from error
    if found is None:  # else this rank would train a head of another size
        raise UserError(
            f"{path}: rank {ranks.rank} does not find this file of rank 0; use a folder that all ranks share"
        )
    return found


def _new_tokenizer(config: Config) -> PreTrainedTokenizerBase:
    """Load the pretrained tokenizer and add missing special tokens, or train a new one."""
    settings = config.tokenizer
    if settings.path and config.model.decoder:
        raise UserError(
            f"config key `tokenizer.path` must be empty with `model.decoder`, got {settings.path}: "
            f"{config.model.decoder} has its own tokenizer"
        )
    if path := settings.path or config.model.decoder:
        tokenizer = load_tokenizer(path)
        tokenizer.add_special_tokens({"additional_special_tokens": tokenization.ARK_TOKENS, "eos_token": "<|im_end|>"})
        return tokenizer
    texts = _transcripts(config)
    samples = texts + build.prompt_examples(config.model.type) * max(1, len(texts) // 20)
    kinds = {"sentencepiece": train_tokenizer.train_sentencepiece, "byte_bpe": train_tokenizer.train_byte_bpe}
    tokenizer = kinds[settings.kind](samples, settings.vocab_size)
    split, different, share = train_tokenizer.spelled_in_bytes(tokenizer, texts)
    if split:
        log(
            f"tokenizer: {split} of {different} different characters ({100 * share:.1f} % of the text) have no token "
            "of their own and are written as bytes; a larger tokenizer.vocab_size gives them tokens"
        )
    return tokenizer


def _transcripts(config: Config) -> list[str]:
    """Return the text that tokenizers are trained on: lines of a text file, or transcripts of cuts."""
    path, rules = config.tokenizer.text, Rules.of(config.data, needs_text=False)
    if path.endswith((".txt", ".txt.gz")):
        texts = _lines(path)
    else:
        texts = [s.text for cut in read_cuts(path, rules) for s in cut.supervisions if (s.text or "").strip()]
    if not texts:
        raise UserError(
            f"config key `tokenizer.text` {path}: has no text to train a tokenizer on; give cuts with transcripts or a "
            "text file (.txt, .txt.gz), or set tokenizer.path"
        )
    return texts


def _lines(path: str) -> list[str]:
    opened: Any = gzip.open if path.endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            return [line.strip() for line in file if line.strip()]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(
            f"config key `tokenizer.text` {path}: cannot be read ({error}); give a UTF-8 text file with one sentence "
            "per line"
        ) from error
