"""What a teacher behind a server is told: where it is, what it is asked for, and how long one waits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal


@dataclass
class HttpTeacherOptions:
    """url: the server's address, without /v1; model: the name that the server gives it; tokenizer: folder or Hub id of
    the model's tokenizer; top_k: best tokens a position that are asked for, at least `distill.top_k` and at most the
    server's `--max-logprobs`; exact_ids: ask for the student's own candidates too, `auto` where the server can; timeout:
    seconds without a byte after which a try is given up; retries: tries after the first; wait: seconds before the second
    try, doubled before each further one; concurrency: requests at a time, of each rank; api_key_env: environment
    variable that holds the server's key, none if empty; max_new_tokens: cap of a transcript when it transcribes.
    """

    url: str = "http://localhost:8000"
    model: str = "Qwen/Qwen3-ASR-1.7B"
    tokenizer: str = "Qwen/Qwen3-ASR-1.7B-hf"
    top_k: int = 32
    exact_ids: Literal["auto", "on", "off"] = "auto"
    timeout: float = 60.0
    retries: int = 4
    wait: float = 1.0
    concurrency: int = 8
    api_key_env: str = ""
    max_new_tokens: int = 256

    def __post_init__(self):
        if not self.url.startswith(("http://", "https://")) or self.url.rstrip("/").endswith("/v1"):
            raise ValueError(f"url={self.url!r}: must be http://host:port or https://host:port, without /v1")
        for name in ("top_k", "concurrency", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if not self.timeout > 0 or self.retries < 0 or self.wait < 0:
            given = f"timeout={self.timeout}, retries={self.retries}, wait={self.wait}"
            raise ValueError(f"{given}: the first must be above 0, the others at least 0")
        if self.api_key_env and not os.environ.get(self.api_key_env):
            raise ValueError(f"api_key_env={self.api_key_env!r}: no such environment variable is set; export the key")
