"""A small server with vLLM's wire format for one SpeechLM, with faults that a test can switch on.

Written from vLLM's protocol, not from the client: it renders the model's chat template, expands the audio placeholder,
scores by a forward pass over the whole prompt, and refuses unknown parameters. It speaks HTTP/1.1 and keeps connections
open, as vLLM's server does.
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
)  # with a system text that the teacher's prompt lacks: a client that uses these ids gets other scores
KNOWN_PARAMS = {
    "max_tokens", "temperature", "detokenize", "prompt_logprobs", "prompt_logprob_token_ids", "prompt_logprob_start",
    "stop_token_ids", "logit_bias",
}  # fmt: skip


class BadRequestError(Exception):
    """vLLM answers such a request with status 400."""


class VllmLike:
    """One served model.

    Attributes:
        requests: Number of requests per path.
        bodies: Path and JSON body of each request that was answered.
        failures: Statuses and texts that are sent first, per path.
        changes: Function that replaces a correct response, per path.
        delays: Function from the number of the request to the seconds before its response, per path.
        connections: Number of accepted connections.
    """

    def __init__(self, lm: SpeechLM, name: str = "tiny", max_logprobs: int = 20, exact: bool = True, key: str = ""):
        self.lm, self.name, self.max_logprobs, self.exact, self.key = lm, name, max_logprobs, exact, key
        self.url, self.lock, self.requests, self.bodies = "", threading.Lock(), Counter(), []
        self.failures: dict[str, list[tuple[int, str]]] = {}
        self.changes: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.delays: dict[str, Callable[[int], float]] = {}
        self.connections = 0

    # Endpoints

    def models(self, body: Any) -> dict[str, Any]:
        """GET /v1/models."""
        return {"object": "list", "data": [{"id": self.name, "object": "model"}]}

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /tokenize."""
        tokens = self._ids(body["prompt"])
        return {"tokens": tokens, "count": len(tokens), "max_model_len": 4096}

    def render(self, body: dict[str, Any]) -> dict[str, Any]:
        """POST /v1/chat/completions/render: token ids with the expanded placeholder, and the clip's features."""
        [message] = body["messages"]
        [part] = message["content"]
        head, _, data = part["audio_url"]["url"].partition(",")
        if (message["role"], part["type"], head) != ("user", "audio_url", "data:audio/wav;base64"):
            raise BadRequestError("the user message holds no clip")
        audio, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
        if rate != 16000 or audio.ndim != 1:
            raise BadRequestError(f"audio at {rate} Hz, not mono at 16000 Hz")
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
        """POST /inference/v1/generate: scores of the prompt, and generated tokens."""
        params = body["sampling_params"]
        if unknown := set(params) - KNOWN_PARAMS:
            raise BadRequestError(f"Unexpected keyword argument {unknown}")
        embeds, ids = self._prompt(body)
        response = {"request_id": "1", "choices": [], "prompt_logprobs": None, "kv_transfer_params": None}
        logprobs = self._logprobs(embeds)
        if (top := params.get("prompt_logprobs")) is not None:
            self._allow(top)
            response["prompt_logprobs"] = self._top(logprobs, ids, top)
        if (wanted := params.get("prompt_logprob_token_ids")) is not None and self.exact:
            response["prompt_token_id_logprobs"] = self._exact(logprobs, params["prompt_logprob_start"], wanted)
        token_ids = self._continue(embeds, params)
        reason = "stop" if set(token_ids) & set(params.get("stop_token_ids", [])) else "length"
        response["choices"] = [{"index": 0, "logprobs": None, "finish_reason": reason, "token_ids": token_ids}]
        return response

    # Computation

    def _ids(self, text: str) -> list[int]:
        return self.lm.tokenizer.encode(text, add_special_tokens=False)

    def _encode(self, audio: numpy.ndarray) -> torch.Tensor:
        return self.lm.encode_audio([torch.from_numpy(audio)])[0]

    def _prompt(self, body: dict[str, Any]) -> tuple[torch.Tensor, list[int]]:
        ids, features = body["token_ids"], body["features"]
        [place], [data] = features["mm_placeholders"]["audio"], features["kwargs_data"]["audio"]
        audio = self._encode(numpy.load(io.BytesIO(base64.b64decode(data))))
        if len(audio) != place["length"]:
            raise BadRequestError("the number of placeholders is not that of the features")
        embeds = self.lm.hf.get_input_embeddings()(torch.tensor(ids)).clone()
        embeds[place["offset"] : place["offset"] + place["length"]] = audio
        return embeds, ids

    def _logprobs(self, embeds: torch.Tensor) -> torch.Tensor:
        return self.lm.hf(inputs_embeds=embeds[None]).logits[0].float().log_softmax(-1)

    def _allow(self, number: int) -> None:
        if number > self.max_logprobs:
            raise BadRequestError(
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

    def _exact(self, logprobs: torch.Tensor, start: int, wanted: list[list[int]]) -> str:
        self._allow(max(map(len, wanted)))
        if len(wanted) != len(logprobs) - 1 - start or min(map(min, wanted)) < 0:
            raise BadRequestError("prompt_logprob_token_ids must hold one list of ids for each scored row")
        return _packed(logprobs[start:-1].gather(-1, torch.tensor(wanted)).numpy())

    def _continue(self, embeds: torch.Tensor, params: dict[str, Any]) -> list[int]:
        generated: list[int] = []
        bias = torch.zeros(len(self.lm.blocked))
        for token, value in params.get("logit_bias", {}).items():
            bias[int(token)] = value
        while len(generated) < params["max_tokens"] and not set(generated) & set(params.get("stop_token_ids", [])):
            generated.append(int((self._logprobs(embeds)[-1] + bias).argmax()))
            embeds = torch.cat([embeds, self.lm.hf.get_input_embeddings()(torch.tensor(generated[-1:]))])
        return generated

    def answer(self, path: str, text: bytes, key: str | None) -> tuple[int, str]:
        """Return the status and the text of the response."""
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
                response = paths[path](body)
            except BadRequestError as error:
                return 400, json.dumps({"error": {"message": str(error), "type": "BadRequestError", "code": 400}})
            if path in self.changes:
                response = self.changes[path](response)
        if path in self.delays:
            time.sleep(self.delays[path](number))
        return 200, response if isinstance(response, str) else json.dumps(response)

    @contextmanager
    def running(self) -> Iterator[VllmLike]:
        """Serve on a free local port."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self):
                super().setup()
                with owner.lock:
                    owner.connections += 1

            def do_GET(self):
                self.do_POST()

            def do_POST(self):
                text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, response = owner.answer(self.path, text, self.headers.get("Authorization"))
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(response.encode())))
                    self.end_headers()
                    self.wfile.write(response.encode())
                except OSError:
                    self.close_connection = True  # the client did not wait

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
