"""A small server that speaks vLLM's wire format for one SpeechLM, slowly and strictly, and misbehaves on demand.

Written after vLLM's protocol, not after our client: it renders the model's chat template by itself, expands the audio
placeholder, scores by a forward pass over the whole prompt, and refuses parameters that it does not know.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy
import soundfile
import torch

from arkasr.model.speech_lm.auto import SpeechLM

RENDER, GENERATE = "/v1/chat/completions/render", "/inference/v1/generate"
TEMPLATE = (
    "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n<|audio_start|>{}<|audio_end|><|im_end|>\n"
    "<|im_start|>assistant\n"
)  # with a system text that the teacher's own prompt lacks: a client that trusts it gets other scores
KNOWN = {
    "max_tokens", "temperature", "detokenize", "prompt_logprobs", "prompt_logprob_token_ids", "prompt_logprob_start",
    "stop_token_ids", "logit_bias",
}  # fmt: skip


class BadRequest(Exception):
    """What vLLM answers with status 400."""


class VllmLike:
    """One served model. answers: what to do to an answer by its path; requests: how many came, by path."""

    def __init__(self, lm: SpeechLM, name: str = "tiny", max_logprobs: int = 20, exact: bool = True, key: str = ""):
        self.lm, self.name, self.max_logprobs, self.exact, self.key = lm, name, max_logprobs, exact, key
        self.url, self.lock, self.requests, self.bodies = "", threading.Lock(), Counter(), []
        self.failures: dict[str, list[tuple[int, str]]] = {}  # path: statuses and texts answered first
        self.twists: dict[str, Callable[[dict[str, Any]], Any]] = {}  # path: what is made of a good answer
        self.delays: dict[str, Callable[[int], float]] = {}  # path: seconds before the n-th answer

    # What the endpoints do

    def models(self, body: Any) -> dict[str, Any]:
        """GET /v1/models."""
        return {"object": "list", "data": [{"id": self.name, "object": "model"}]}

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /tokenize."""
        tokens = self._ids(body["prompt"])
        return {"tokens": tokens, "count": len(tokens), "max_model_len": 4096}

    def render(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/chat/completions/render: token ids with the placeholder expanded, and the clip's features."""
        [message] = body["messages"]
        [part] = message["content"]
        head, _, data = part["audio_url"]["url"].partition(",")
        if (message["role"], part["type"], head) != ("user", "audio_url", "data:audio/wav;base64"):
            raise BadRequest("no clip in the message of a user")
        audio, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
        if rate != 16000 or audio.ndim != 1:
            raise BadRequest(f"audio at {rate} Hz")
        count = len(self._encode(audio))
        ids = self._ids(TEMPLATE.format("<|audio_pad|>" * count))
        place = {"offset": ids.index(self._ids("<|audio_pad|>")[0]), "length": count}
        packed = _packed(audio)
        features = {
            "mm_hashes": {"audio": [hashlib.sha256(packed.encode()).hexdigest()]},
            "mm_placeholders": {"audio": [place]},
            "kwargs_data": {"audio": [packed]},
        }
        return {"token_ids": ids, "features": features, "sampling_params": {}, "model": self.name}

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /inference/v1/generate: scores of the prompt, and new tokens."""
        params = body["sampling_params"]
        if unknown := set(params) - KNOWN:
            raise BadRequest(f"Unexpected keyword argument {unknown}")
        embeds, ids = self._prompt(body)
        answer = {"request_id": "1", "choices": [], "prompt_logprobs": None, "kv_transfer_params": None}
        logprobs = self._logprobs(embeds)
        if (top := params.get("prompt_logprobs")) is not None:
            self._allow(top)
            answer["prompt_logprobs"] = self._top(logprobs, ids, top)
        if (asked := params.get("prompt_logprob_token_ids")) is not None and self.exact:
            answer["prompt_token_id_logprobs"] = self._exact(logprobs, params["prompt_logprob_start"], asked)
        made = self._continue(embeds, params)
        answer["choices"] = [{"index": 0, "logprobs": None, "finish_reason": "stop", "token_ids": made}]
        return answer

    # How

    def _ids(self, text: str) -> list[int]:
        return self.lm.tokenizer.encode(text, add_special_tokens=False)

    def _encode(self, audio: numpy.ndarray) -> torch.Tensor:
        return self.lm.encode_audio([torch.from_numpy(audio)])[0]

    def _prompt(self, body: dict[str, Any]) -> tuple[torch.Tensor, list[int]]:
        ids, features = body["token_ids"], body["features"]
        [place], [data] = features["mm_placeholders"]["audio"], features["kwargs_data"]["audio"]
        audio = self._encode(numpy.load(io.BytesIO(base64.b64decode(data))))
        if len(audio) != place["length"]:
            raise BadRequest("placeholders do not fit the features")
        embeds = self.lm.hf.get_input_embeddings()(torch.tensor(ids)).clone()
        embeds[place["offset"] : place["offset"] + place["length"]] = audio
        return embeds, ids

    def _logprobs(self, embeds: torch.Tensor) -> torch.Tensor:
        return self.lm.hf(inputs_embeds=embeds[None]).logits[0].float().log_softmax(-1)

    def _allow(self, number: int) -> None:
        if number > self.max_logprobs:
            raise BadRequest(
                f"Requested prompt logprobs of {number}, which is greater than max allowed: {self.max_logprobs}"
            )

    def _top(self, logprobs: torch.Tensor, ids: list[int], top: int) -> list[Any]:
        rows: list[Any] = [None]
        for row, token in zip(logprobs, ids[1:]):
            best = row.topk(top).indices.tolist()
            chosen = [token, *(i for i in best if i != token)]
            value = {i: max(float(row[i]), -9999.0) for i in chosen}
            rank = {i: int((row > row[i]).sum()) + 1 for i in chosen}
            rows.append({str(i): {"logprob": value[i], "rank": rank[i], "decoded_token": None} for i in chosen})
        return rows

    def _exact(self, logprobs: torch.Tensor, start: int, asked: list[list[int]]) -> str:
        self._allow(max(map(len, asked)))
        if len(asked) != len(logprobs) - 1 - start or min(map(min, asked)) < 0:
            raise BadRequest("prompt_logprob_token_ids must hold one list of ids for each scored row")
        return _packed(logprobs[start:-1].gather(-1, torch.tensor(asked)).numpy())

    def _continue(self, embeds: torch.Tensor, params: dict[str, Any]) -> list[int]:
        made: list[int] = []
        bias = torch.zeros(len(self.lm.blocked))
        for token, value in params.get("logit_bias", {}).items():
            bias[int(token)] = value
        while len(made) < params["max_tokens"] and not set(made) & set(params.get("stop_token_ids", [])):
            made.append(int((self._logprobs(embeds)[-1] + bias).argmax()))
            embeds = torch.cat([embeds, self.lm.hf.get_input_embeddings()(torch.tensor(made[-1:]))])
        return made

    def answer(self, path: str, text: bytes, key: str | None) -> tuple[int, str]:
        """Return the status and the text that answer a request."""
        paths = {"/v1/models": self.models, "/tokenize": self.tokenize, RENDER: self.render, GENERATE: self.generate}
        with self.lock, torch.no_grad():
            self.requests[path] += 1
            number = self.requests[path]
            if self.key and key != f"Bearer {self.key}":
                return 401, '{"error": "Unauthorized"}'
            if self.failures.get(path):
                return self.failures[path].pop(0)
            if path not in paths:
                return 404, '{"detail": "Not Found"}'
            body = json.loads(text) if text else None
            self.bodies.append((path, body))
            try:
                found = paths[path](body)
            except BadRequest as error:
                return 400, json.dumps({"error": {"message": str(error), "type": "BadRequestError", "code": 400}})
            if path in self.twists:
                found = self.twists[path](found)
        if path in self.delays:
            time.sleep(self.delays[path](number))
        return 200, found if isinstance(found, str) else json.dumps(found)

    @contextmanager
    def running(self) -> Iterator[VllmLike]:
        """Serve on a free port of this machine."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.do_POST()

            def do_POST(self):
                text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, said = owner.answer(self.path, text, self.headers.get("Authorization"))
                try:
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(said.encode())
                except OSError:
                    pass  # the client did not wait

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _packed(array: numpy.ndarray) -> str:
    file = io.BytesIO()
    numpy.save(file, array)
    return base64.b64encode(file.getvalue()).decode()
