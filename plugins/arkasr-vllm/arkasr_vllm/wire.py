"""Writes the requests to a vLLM server, and reads and checks its responses. A wrong response raises UserError.

`scoring` describes the endpoints. The argument `where` is the address that a message names.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import arkasr
from arkasr_vllm.client import Refused

if TYPE_CHECKING:
    from torch import Tensor

HOP = 160  # samples per mel frame; incomplete frames are cut, because server and local model count them differently
MIN_SAMPLES = 8000  # the local model pads shorter clips with zeros to this length
MINUS_INFINITY = -9999.0  # the server's value for -inf, which JSON lacks
MAX_EXCESS = 1e-3  # nats above 0 that rounding may cause
SPARE_IDS = 4096  # ids that a model may have beyond those of its tokenizer, because vocabularies are padded
MAX_ENTRY_BYTES = 256  # of one token in a response: its id, log-probability, rank and text in JSON
CHECK_SERVER = "check that the server is a vLLM of a supported version (see the README of arkasr-vllm)"

Row = dict[int, float]  # log-probabilities in nats by token id


def audio_part(waveform: Tensor) -> dict[str, Any]:
    """Write a waveform as part of a chat message: a WAV file in float32, which rounds nothing.

    Args:
        waveform: Float tensor [num_samples] at 16 kHz.

    Returns:
        The part, with the file as a data URL.
    """
    import soundfile
    from torch.nn.functional import pad

    samples = waveform[: max(len(waveform) // HOP, 1) * HOP]
    samples = pad(samples, (0, max(MIN_SAMPLES - len(samples), 0)))
    file = io.BytesIO()
    soundfile.write(file, samples.float().cpu().numpy(), arkasr.SAMPLE_RATE, format="WAV", subtype="FLOAT")
    url = "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "audio_url", "audio_url": {"url": url}}


def read_rendered(response: dict[str, Any], audio_id: int, where: str) -> tuple[dict[str, Any], int]:
    """Read the response of the render endpoint.

    Args:
        response: The response.
        audio_id: Id of the audio placeholder token.
        where: Address for messages.

    Returns:
        The clip's features, as they are sent back to the server, and their number of audio tokens.

    Raises:
        UserError: There are no features of exactly one clip, or other tokens at their place.
    """
    try:
        features, ids = response["features"], response["token_ids"]
        [place] = features["mm_placeholders"]["audio"]
        [data] = (features.get("kwargs_data") or {"audio": [None]})["audio"]
        placeholders = list(ids[place["offset"] : place["offset"] + place["length"]])
        only_audio = bool(placeholders) and all(token == audio_id for token in placeholders)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise arkasr.UserError(
            f"{where}: the response does not hold the features of one clip: {_short(response)}; {CHECK_SERVER}"
        ) from error
    if not isinstance(data, str):
        raise arkasr.UserError(
            f"{where}: the response lacks the clip's features (kwargs_data), which scoring needs; start the server "
            "with --mm-processor-cache-gb 0, and use a newer vLLM if that does not help"
        )
    if not only_audio:
        raise arkasr.UserError(f"{where}: the server placed other tokens where the audio belongs; serve Qwen3-ASR")
    return features, len(placeholders)


def place_audio(features: dict[str, Any], offset: int, length: int) -> dict[str, Any]:
    """Return the features for a prompt with the audio at another place.

    Args:
        features: Features of one clip.
        offset: Index of the first audio token in the prompt.
        length: Number of audio tokens.

    Returns:
        A copy with this place.
    """
    return features | {"mm_placeholders": {"audio": [{"offset": offset, "length": length}]}}


def read_rows(
    response: dict[str, Any], ids: Sequence[int], num_scored: int, top_k: int, num_ids: int, where: str
) -> list[Row]:
    """Read `prompt_logprobs` of the generate endpoint.

    Args:
        response: The response.
        ids: All token ids that were sent, prompt and transcript.
        num_scored: Length of the transcript, the last of these ids.
        top_k: Requested tokens per position.
        num_ids: Ids from 0 to below this number are tokens.
        where: Address for messages.

    Returns:
        `num_scored` rows.

    Raises:
        UserError: The number of rows differs from that of the tokens. Or a row lacks the token that was sent, has fewer
            than `top_k` tokens or ids that are no tokens, or values that cannot be log-probabilities of different
            tokens.
    """
    rows = response.get("prompt_logprobs")
    if not isinstance(rows, list):
        raise arkasr.UserError(f"{where}: the response has no prompt_logprobs: {_short(response)}; {CHECK_SERVER}")
    if len(rows) != len(ids):
        raise arkasr.UserError(
            f"{where}: {len(ids)} tokens were sent, {len(rows)} were scored: the server scored another transcript; "
            f"{CHECK_SERVER}"
        )
    return [_row(row, token, top_k, num_ids, where) for row, token in zip(rows[-num_scored:], ids[-num_scored:])]


def _row(row: Any, token: int, top_k: int, num_ids: int, where: str) -> Row:
    try:
        values = {_number(key): _logprob(value["logprob"]) for key, value in row.items()}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise arkasr.UserError(
            f"{where}: prompt_logprobs holds {_short(row)}, not log-probabilities by id; {CHECK_SERVER}"
        ) from error
    if token not in values:
        raise arkasr.UserError(
            f"{where}: token {token} was sent, but its row does not hold it: the server scored another transcript; "
            f"{CHECK_SERVER}"
        )
    if len(values) < top_k or len(values) != len(row):
        raise arkasr.UserError(
            f"{where}: {top_k} tokens per position were requested, {len(values)} returned; {CHECK_SERVER}"
        )
    if max(values) >= num_ids:
        raise arkasr.UserError(
            f"{where}: returned scores of token {max(values)}, the model of teacher.options.tokenizer has {num_ids} at "
            "most; set teacher.options.tokenizer to the tokenizer of the served model"
        )
    mass = sum(math.exp(min(value, 1.0)) for value in values.values())
    if not mass <= 1 + MAX_EXCESS:
        raise arkasr.UserError(
            f"{where}: these are not log-probabilities: {_short(values)}; serve with --logprobs-mode raw_logprobs"
        )
    return {key: value if value > MINUS_INFINITY else -math.inf for key, value in values.items()}


def _number(text: Any) -> int:
    """Read a token id. `int` would also accept signs, blanks and underscores."""
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(text)
    return int(text)


def _logprob(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(value)
    return float(value)


def read_exact(response: dict[str, Any], num_rows: int, width: int, where: str) -> Tensor:
    """Read `prompt_token_id_logprobs` of the generate endpoint.

    Args:
        response: The response.
        num_rows: Positions.
        width: Token ids per position.
        where: Address for messages.

    Returns:
        float32 [num_rows, width], log-probabilities in nats.

    Raises:
        Refused: The server did not return them.
        UserError: They are no array of this shape, or cannot be log-probabilities.
    """
    import numpy
    import torch

    text = response.get("prompt_token_id_logprobs")
    if not isinstance(text, str):
        raise Refused(f"{where}: the response has no prompt_token_id_logprobs, the scores of chosen token ids", 200)
    try:
        data = base64.b64decode(text)
        largest = num_rows * width * 8 + 1024  # numpy reserves what the header names, before it reads
        if len(data) > largest:
            raise ValueError(f"{len(data)} bytes, expected at most {largest}")
        values = numpy.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, SyntaxError, TypeError, OverflowError) as error:
        raise arkasr.UserError(
            f"{where}: prompt_token_id_logprobs cannot be read: {_short(error)}; set teacher.options.exact_ids to off"
        ) from error
    if not isinstance(values, numpy.ndarray) or values.shape != (num_rows, width) or values.dtype.kind != "f":
        shape = f"{getattr(values, 'dtype', type(values))} {list(getattr(values, 'shape', []))}"
        raise arkasr.UserError(
            f"{where}: prompt_token_id_logprobs is {shape}, not float32 [{num_rows}, {width}]; set "
            "teacher.options.exact_ids to off"
        )
    if not (values <= MAX_EXCESS).all():
        raise arkasr.UserError(
            f"{where}: prompt_token_id_logprobs holds values up to {values.max()}, not log-probabilities; set "
            "teacher.options.exact_ids to off"
        )
    return torch.from_numpy(values.astype("float32"))


def pad_rows(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Write P rows as tensors.

    Args:
        rows: P rows of at most K tokens.

    Returns:
        Ids, int64 [P, K], padded with -1, and log-probabilities, float32 [P, K], padded with -inf.
    """
    import torch

    width = max(map(len, rows), default=1)
    ids = [[*row, *[-1] * (width - len(row))] for row in rows]
    values = [[*row.values(), *[-math.inf] * (width - len(row))] for row in rows]
    shape = (len(rows), width)
    return torch.tensor(ids, dtype=torch.long).view(shape), torch.tensor(values, dtype=torch.float32).view(shape)


def read_tokens(response: dict[str, Any], num_ids: int, where: str) -> tuple[list[int], str | None]:
    """Read the generated token ids of the generate endpoint.

    Args:
        response: The response.
        num_ids: Ids from 0 to below this number are tokens.
        where: Address for messages.

    Returns:
        The token ids, and why the server ended: "stop", "length", or None if it does not report it.

    Raises:
        UserError: There are none, or ids that are no tokens.
    """
    try:
        ids, reason = list(response["choices"][0]["token_ids"]), response["choices"][0].get("finish_reason")
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise arkasr.UserError(
            f"{where}: the response holds no generated tokens: {_short(response)}; {CHECK_SERVER}"
        ) from error
    if not all(type(token) is int and 0 <= token < num_ids for token in ids):
        raise arkasr.UserError(f"{where}: generated tokens are {_short(ids)}, not ids below {num_ids}; {CHECK_SERVER}")
    return ids, reason if isinstance(reason, str) else None


def _short(value: Any) -> str:
    return repr(value)[:200]
