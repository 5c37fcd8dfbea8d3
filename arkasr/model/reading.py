"""Read the small files of a model folder: every error becomes one sentence, and code that a folder names never runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from arkasr.errors import UserError
from arkasr.utils.files import read_json

JSON_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
# What transformers raises on files with unexpected contents.
_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ImportError,
    StrictDataclassError,
    SafetensorError,
)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn errors in reading a model's files into a UserError that names the path.

    Args:
        path: Folder or Hub id.

    Raises:
        UserError: Reading inside the context failed.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not (isinstance(error, _ERRORS) or type(error) is Exception):  # `tokenizers` raises Exception itself
            raise
        kind = f"{type(error).__name__}: " if isinstance(error, LookupError | TypeError | AttributeError) else ""
        cause = " ".join(f"{kind}{error}".split()).rstrip(". ")
        if "trust_remote_code" in cause:
            cause = "it needs its own code (auto_map), which is never run"
        raise UserError(
            f"{path}: cannot be read as a model: {cause}; give the folder of a model or a Hub id (owner/name)"
        ) from error


def check_json_files(path: str) -> None:
    """Check that the JSON files of a local model folder are complete JSON objects. A Hub id is accepted unseen.

    Args:
        path: Folder or Hub id.

    Raises:
        UserError: A file is empty, cut short or not a JSON object. The message names it.
    """
    for name in JSON_FILES:
        if (file := Path(path) / name).is_file():
            read_json(file, "copy or export the model again")


def load_tokenizer(path: str, **hub: Any) -> PreTrainedTokenizerBase:
    """Load a tokenizer. Code that its folder names (`auto_map`) never runs.

    Args:
        path: Folder or Hub id.
        **hub: Options for the Hub (revision, token, cache_dir and others).

    Returns:
        The tokenizer.

    Raises:
        UserError: There is no tokenizer, a file is damaged, or the tokenizer needs its own code.
    """
    check_json_files(path)
    with reading(path):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **hub)
    for how in ("is_local", "local_files_only"):  # saving would write how it was loaded here
        tokenizer.init_kwargs.pop(how, None)
    return tokenizer
