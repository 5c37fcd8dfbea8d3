"""What goes over the wire to a vLLM server, and what comes back, checked: a wrong answer is a UserError.

Which endpoints there are: http_scoring.py. `where` is the address that a message names.
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

HOP = 160  # samples a mel frame: what is over is cut, as a frame that is not whole counts here and not there
SHORTEST = 8000  # samples; the model's own code fills shorter clips up with zeros
NEVER = -9999.0  # how the server writes -inf, which JSON lacks
SLACK = 1e-3  # nats above 0 that rounding may bring

Row = dict[int, float]


def audio_part(waveform: Tensor) -> dict[str, Any]:
    """Write a waveform [num_samples] as a chat message's part: a WAV of float32, so that nothing is rounded."""
    import soundfile
    from torch.nn.functional import pad

    whole = waveform[: max(len(waveform) // HOP, 1) * HOP]
    whole = pad(whole, (0, max(SHORTEST - len(whole), 0)))
    file = io.BytesIO()
    soundfile.write(file, whole.float().cpu().numpy(), arkasr.SAMPLE_RATE, format="WAV", subtype="FLOAT")
    url = "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "audio_url", "audio_url": {"url": url}}


def read_rendered(answer: dict[str, Any], audio_id: int, where: str) -> tuple[dict[str, Any], int]:
    """Return the audio's features, as they go back to the server, and how many audio tokens they stand for."""
    try:
        features, ids = answer["features"], answer["token_ids"]
        [place] = features["mm_placeholders"]["audio"]
        [data] = (features.get("kwargs_data") or {"audio": [None]})["audio"]
        found = ids[place["offset"] : place["offset"] + place["length"]]
    except (KeyError, TypeError, ValueError) as error:
        raise arkasr.UserError(f"{where}: the answer does not hold one clip's features: {_short(answer)}") from error
    if not isinstance(data, str):
        raise arkasr.UserError(
            f"{where}: the answer leaves out the clip's features (kwargs_data), so they cannot be scored; start the "
            "server with --mm-processor-cache-gb 0, and take a newer vLLM if that does not mend it"
        )
    if not found or set(found) != {audio_id}:
        raise arkasr.UserError(f"{where}: where the audio is to stand it read other tokens: is this Qwen3-ASR?")
    return features, len(found)


def moved(features: dict[str, Any], offset: int, length: int) -> dict[str, Any]:
    """Return features whose audio stands at `offset` of the prompt."""
    return features | {"mm_placeholders": {"audio": [{"offset": offset, "length": length}]}}


def read_rows(answer: dict[str, Any], ids: Sequence[int], scored: int, top_k: int, where: str) -> list[Row]:
    """Return what is known at the last `scored` of the tokens `ids`: log-probabilities by token id.

    Checked are the number of rows, that each holds the token that was sent, and at least `top_k` true log-probabilities.
    """
    rows = answer.get("prompt_logprobs")
    if not isinstance(rows, list):
        raise arkasr.UserError(f"{where}: the answer has no prompt_logprobs: {_short(answer)}")
    if len(rows) != len(ids):
        raise arkasr.UserError(f"{where}: {len(ids)} tokens were sent, {len(rows)} are scored: the server read others")
    return [_row(row, token, top_k, where) for row, token in zip(rows[-scored:], ids[-scored:])]


def _row(row: Any, token: int, top_k: int, where: str) -> Row:
    try:
        found = {int(key): float(value["logprob"]) for key, value in row.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise arkasr.UserError(f"{where}: prompt_logprobs holds {_short(row)}") from error
    if token not in found:
        raise arkasr.UserError(
            f"{where}: token {token} was sent, and is not among those scored: the server read others"
        )
    if len(found) < top_k:
        raise arkasr.UserError(f"{where}: {top_k} tokens a position were asked for, {len(found)} are answered")
    mass = sum(math.exp(min(value, 1.0)) for value in found.values())
    if not mass <= 1 + SLACK or min(found) < 0:
        raise arkasr.UserError(
            f"{where}: no log-probabilities: {_short(found)}; serve with --logprobs-mode raw_logprobs"
        )
    return {key: value if value > NEVER else -math.inf for key, value in found.items()}


def read_exact(answer: dict[str, Any], rows: int, width: int, where: str) -> Tensor:
    """Return the log-probabilities [rows, width] of the token ids that were named; raises Refused where it has none."""
    import numpy
    import torch

    text = answer.get("prompt_token_id_logprobs")
    if not isinstance(text, str):
        raise Refused(f"{where}: the answer has no prompt_token_id_logprobs, the scores of ids that we name", 200)
    try:
        values = numpy.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise arkasr.UserError(f"{where}: prompt_token_id_logprobs cannot be read: {error}") from error
    if values.shape != (rows, width) or values.dtype.kind != "f":
        raise arkasr.UserError(
            f"{where}: prompt_token_id_logprobs is {values.dtype} {list(values.shape)}, not float32 [{rows}, {width}]"
        )
    if not (values <= SLACK).all():
        raise arkasr.UserError(f"{where}: prompt_token_id_logprobs holds no log-probabilities but up to {values.max()}")
    return torch.from_numpy(values.astype("float32"))


def table(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Make ids int64 [P, K] and log-probabilities float32 [P, K] of P rows, filled up with -1 and -inf."""
    import torch

    width = max(map(len, rows), default=1)
    ids = [[*row, *[-1] * (width - len(row))] for row in rows]
    values = [[*row.values(), *[-math.inf] * (width - len(row))] for row in rows]
    shape = (len(rows), width)
    return torch.tensor(ids, dtype=torch.long).view(shape), torch.tensor(values, dtype=torch.float32).view(shape)


def read_tokens(answer: dict[str, Any], where: str) -> list[int]:
    """Return the token ids that were generated."""
    try:
        return [int(token) for token in answer["choices"][0]["token_ids"]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise arkasr.UserError(f"{where}: the answer holds no generated tokens: {_short(answer)}") from error


def _short(value: Any) -> str:
    return repr(value)[:200]
