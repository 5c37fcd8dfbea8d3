"""Checks before the first step: the model's name, its tokenizer, use of the audio, and exact ids."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import arkasr
from arkasr_vllm.client import Refused, Server
from arkasr_vllm.scoring import Affixes, ScoredClip, Scorer

MISSING_ENDPOINT = (404, 405, 501)  # statuses of a server without the endpoint
MIN_CHANGE = 4  # silence must change scores by this many times the difference between two equal requests
MAX_REPEAT_ERROR = 0.1  # nats between two values of one number from a server that computes in bfloat16


def load_tokenizer(path: str, required: tuple[str, ...]) -> Any:
    """Load the model's tokenizer.

    Args:
        path: Folder or Hub id.
        required: Tokens that the vocabulary must contain.

    Returns:
        A Hugging Face tokenizer.

    Raises:
        UserError: `path` holds no tokenizer, or one that lacks a required token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise arkasr.UserError(f"{path}: cannot be read as a tokenizer (teacher.options.tokenizer): {cause}") from error
    missing = [token for token in required if token not in tokenizer.get_vocab()]
    if missing:
        raise arkasr.UserError(
            f"{path}: the tokenizer lacks {', '.join(missing)}, so it is not Qwen3-ASR's; set teacher.options.tokenizer"
        )
    return tokenizer


def check_model(server: Server, model: str) -> None:
    """Check that the server serves a model of this name.

    Args:
        server: The server.
        model: The name.

    Raises:
        UserError: It serves other models only, or the request failed.
    """
    models = server.get("/v1/models").get("data")
    names = [m.get("id") for m in models if isinstance(m, dict)] if isinstance(models, list) else []
    if model not in names:
        raise arkasr.UserError(
            f"{server.url}/v1/models: serves {', '.join(map(str, names)) or 'nothing'}, not {model!r}; set "
            "teacher.options.model, or teacher.options.url to the server of this model"
        )


def check_tokenizer(server: Server, model: str, text: str, ids: list[int], path: str) -> None:
    """Check that the server's tokenizer gives the same ids. A server without `/tokenize` is not checked.

    Args:
        server: The server.
        model: The model's name on the server.
        text: The text to tokenize.
        ids: Its token ids by the local tokenizer.
        path: Where the local tokenizer was loaded from, for the message.

    Raises:
        UserError: The ids differ, or the request failed.
    """
    try:
        reply = server.post("/tokenize", {"model": model, "prompt": text, "add_special_tokens": False})
    except Refused as error:
        if error.status in MISSING_ENDPOINT:
            return
        raise
    if reply.get("tokens") != ids:
        raise arkasr.UserError(
            f"{server.url}/tokenize: returns other tokens than {path}, so the scores would be those of another model; "
            "set teacher.options.tokenizer to the tokenizer of the served model"
        )


def check_audio_is_used(scorer: Scorer, affixes: Affixes, ids: list[int]) -> ScoredClip:
    """Check that the scores depend on the audio.

    A transcript is scored twice under a tone of 0.5 s, and once under silence. Silence must change the scores
    more than repetition does, because a server that computes in bfloat16 rarely returns equal numbers twice.

    Args:
        scorer: The served model.
        affixes: The prompt's token ids before and after the audio.
        ids: The transcript's token ids.

    Returns:
        The scores under the tone.

    Raises:
        UserError: The scores under tone and silence agree, or a request failed.
    """
    import torch

    time = torch.arange(8000)
    tone, silence = 0.3 * torch.sin(0.3 * time), torch.zeros(8000)
    first, repeated, silent = scorer.score([tone, tone, silence], [affixes] * 3, [ids] * 3)
    if not _max_difference(first, silent) > MIN_CHANGE * _max_difference(first, repeated):
        raise arkasr.UserError(
            f"{scorer.server.url}: returns the same scores for a tone and for silence, so it ignores the audio; use a "
            "vLLM whose generate endpoint uses audio features"
        )
    return first


def _max_difference(one: ScoredClip, other: ScoredClip) -> float:
    """Return the largest difference in nats at the transcript's own tokens."""
    return max(abs(a[token] - b[token]) for a, b, token in zip(one.rows, other.rows, one.ids))


def supports_exact_ids(scorer: Scorer, clip: ScoredClip, requested: Literal["auto", "on", "off"]) -> bool:
    """Check whether the server scores chosen token ids, by requesting log-probabilities that are known already.

    Args:
        scorer: The served model.
        clip: A scored transcript.
        requested: The option `exact_ids`. "off": nothing is requested. "auto": a server without support gives a
            warning. "on": it gives an error.

    Returns:
        Whether exact ids are used.

    Raises:
        UserError: No support although `requested` is "on", different numbers than before, or a failed request.
    """
    import torch

    if requested == "off":
        return False
    known = torch.tensor([row[token] for row, token in zip(clip.rows, clip.ids)])
    try:
        values = scorer.exact_at(clip, torch.tensor(clip.ids)[:, None])[:, 0]
    except Refused as error:
        if requested == "on":
            raise arkasr.UserError(f"{error}; exact_ids=on needs them (see the README of arkasr-vllm)") from error
        effect = "student candidates outside the teacher's best tokens count as impossible"
        warnings.warn(f"{error}; {effect} (teacher.options.exact_ids=auto)", stacklevel=2)
        return False
    if not torch.isclose(values, known, rtol=0, atol=MAX_REPEAT_ERROR).all():
        raise arkasr.UserError(
            f"{scorer.server.url}: the scores of chosen token ids differ from prompt_logprobs; set "
            "teacher.options.exact_ids to off, or use another vLLM version"
        )
    return True
