"""What is checked before the first step: the server has this model, reads text as we do, and hears the audio."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import arkasr
from arkasr_vllm.client import Refused, Server
from arkasr_vllm.scoring import Ends, Scored, Scorer

LACKING = (404, 405, 501)  # statuses of an endpoint that is not there
NOISE = 4  # times the difference of two runs that another clip must make
AGREE = 0.1  # nats by which a number computed twice may differ where the server computes in bfloat16


def load_tokenizer(path: str, needed: tuple[str, ...]) -> Any:
    """Load the model's tokenizer from a folder or the Hub; raises UserError where it lacks a needed token."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise arkasr.UserError(f"{path}: cannot be read as a tokenizer (teacher.options.tokenizer): {said}") from error
    missing = [token for token in needed if token not in tokenizer.get_vocab()]
    if missing:
        raise arkasr.UserError(f"{path}: the tokenizer lacks {', '.join(missing)}: it is not Qwen3-ASR's")
    return tokenizer


def check_model(server: Server, model: str) -> None:
    """See that the server serves a model of this name."""
    models = server.get("/v1/models").get("data")
    names = [m.get("id") for m in models if isinstance(m, dict)] if isinstance(models, list) else []
    if model not in names:
        raise arkasr.UserError(
            f"{server.url}/v1/models: serves {', '.join(map(str, names)) or 'nothing'}, not {model!r}: set "
            "teacher.options.model, or the address of the server that has it"
        )


def check_tokenizer(server: Server, model: str, text: str, ids: list[int], path: str) -> None:
    """See that the server reads a text as these ids; one without the endpoint is believed."""
    try:
        found = server.post("/tokenize", {"model": model, "prompt": text, "add_special_tokens": False}).get("tokens")
    except Refused as error:
        if error.status in LACKING:
            return
        raise
    if found != ids:
        raise arkasr.UserError(
            f"{server.url}/tokenize: reads a text as other tokens than {path}: its scores would be another model's; "
            "set teacher.options.tokenizer to the tokenizer of the model served"
        )


def check_hearing(scorer: Scorer, ends: Ends, ids: list[int]) -> Scored:
    """Score a transcript under half a second of a tone, twice, and of silence. Returns what the tone gave.

    Silence must change the numbers, and more than repeating does: a server in bfloat16 seldom says the same twice.
    """
    import torch

    time = torch.arange(8000)
    tone, silence = 0.3 * torch.sin(0.3 * time), torch.zeros(8000)
    first, again, other = scorer.score([tone, tone, silence], [ends] * 3, [ids] * 3)
    if not _apart(first, other) > NOISE * _apart(first, again):
        raise arkasr.UserError(
            f"{scorer.server.url}: scores a tone and silence alike, so it leaves the audio's features aside; take a "
            "vLLM whose generate endpoint uses them"
        )
    return first


def _apart(one: Scored, other: Scored) -> float:
    """Return the largest difference in nats at the tokens that were read."""
    return max(abs(a[token] - b[token]) for a, b, token in zip(one.rows, other.rows, one.ids))


def offers_exact(scorer: Scorer, one: Scored, wanted: Literal["auto", "on", "off"]) -> bool:
    """Tell whether the server scores ids that are named, by asking for numbers that are known already.

    Raises UserError where it does not and `wanted` is "on", and where the numbers are others.
    """
    import torch

    if wanted == "off":
        return False
    known = torch.tensor([row[token] for row, token in zip(one.rows, one.ids)])
    try:
        found = scorer.exact_at(one, torch.tensor(one.ids)[:, None])[:, 0]
    except Refused as error:
        if wanted == "on":
            raise arkasr.UserError(f"{error}; exact_ids=on needs it (docs/remote_teacher.md)") from error
        left_out = "the student's candidates outside the teacher's best count as impossible"
        warnings.warn(f"{error}; {left_out} (teacher.options.exact_ids=auto)", stacklevel=2)
        return False
    if not torch.isclose(found, known, rtol=0, atol=AGREE).all():
        raise arkasr.UserError(f"{scorer.server.url}: gives other numbers for ids that are named than at first")
    return True
