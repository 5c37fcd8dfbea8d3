"""Options of the teacher `qwen3_asr_http` (`teacher.options` of a configuration)."""

from __future__ import annotations

import math
import os
import re
import threading
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass
class HttpTeacherOptions:
    """Where the server is, what is requested, and how long a request may take."""

    memory_gib: ClassVar[float] = 0.0  # on the GPUs of the training, for `arkasr plan`
    url: str = "http://localhost:8000"  # address of the server, without /v1
    model: str = "Qwen/Qwen3-ASR-1.7B"  # the model's name on the server
    tokenizer: str = "Qwen/Qwen3-ASR-1.7B-hf"  # folder or Hub id of the model's tokenizer
    top_k: int = 32  # requested tokens per position, best first; from `distill.top_k` to the server's `--max-logprobs`
    exact_ids: Literal["auto", "on", "off"] = "auto"  # also request the student's candidates; auto: if supported
    timeout: float = 60.0  # seconds without a received byte after which an attempt fails
    deadline: float = 600.0  # seconds after which an attempt fails, also if the server sends byte after byte
    retries: int = 4  # attempts after the first
    wait: float = 1.0  # seconds before the second attempt; the wait doubles before each further one
    concurrency: int = 8  # simultaneous requests per rank
    api_key_env: str = ""  # environment variable that holds the server's API key; empty: no key
    max_new_tokens: int = 256  # maximum number of tokens per transcript when the teacher transcribes
    tokens_per_second: float = 50.0  # further limit: 2 + this rate times the seconds of audio; 0: no further limit

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")) or self.url.rstrip("/").endswith("/v1"):
            raise ValueError(f"url={self.url!r}: must be http://host:port or https://host:port, without /v1")
        for name in ("top_k", "concurrency", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.tokens_per_second < math.inf:
            raise ValueError(f"tokens_per_second={self.tokens_per_second}: must be finite and at least 0")
        for name in ("timeout", "deadline"):
            if not 0 < getattr(self, name) <= threading.TIMEOUT_MAX:
                raise ValueError(f"{name}={getattr(self, name)}: must be a positive number of seconds")
        if self.retries < 0 or not 0 <= self.wait <= threading.TIMEOUT_MAX:
            raise ValueError(f"retries={self.retries}, wait={self.wait}: both must be at least 0")
        if self.api_key_env:
            _check_key(self.api_key_env)


def _check_key(variable: str) -> None:
    key = os.environ.get(variable, "")
    if not key:
        raise ValueError(f"api_key_env={variable!r}: this environment variable is not set; export the server's key")
    if not re.fullmatch(r"[!-~]+", key):  # the HTTP client would refuse it with a message that shows the key
        raise ValueError(f"api_key_env={variable!r}: the key must be printable ASCII without blanks or line ends")
