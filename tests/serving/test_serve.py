"""`arkasr serve` as a process: its address, its end by signals, and what it refuses to start with."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from forked_ranks import Forked
from processes import wait_until
from scripted_recognizer import ScriptedRecognizer
from served import BOUNDARY, Running, form, tone

from arkasr import cli
from arkasr.serving import serve
from arkasr.serving.limits import Limits
from arkasr.transcription.settings import Settings


class Process:
    """A running `arkasr serve`."""

    def __init__(self, *words: str, **env: str):
        command = [sys.executable, "-u", "-m", "arkasr", "serve", *words]
        everything = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | env
        self.process = subprocess.Popen(
            command, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True).start()

    def address(self) -> Running:
        wait_until(lambda: "http://" in "".join(self.lines) or self.process.poll() is not None)
        return Running(re.search(r"http://\S+:\d+", "".join(self.lines))[0], None, None)

    def __enter__(self):
        return self

    def __exit__(self, *_: object):
        self.process.kill()
        self.process.wait()


@pytest.mark.slow
def test_the_command_serves_a_model_until_sigterm(trained, tmp_path):
    words = ("--model", str(trained / "base" / "final"), "--port", "0", "--device", "cpu")
    with Process(*words, TMPDIR=str(tmp_path)) as server:
        service = server.address()
        status, body, _ = service.post({"model": "base"}, tone(1))
        assert status == 200 and body["text"]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    text = "".join(server.lines)
    assert "SIGTERM: " in text and "Traceback" not in text and body["text"] not in text
    assert list(tmp_path.iterdir()) == []


class Gated(ScriptedRecognizer):
    """Batches wait until a file exists."""

    def __init__(self, gate: Path):
        super().__init__()
        self.gate = gate

    def transcribe(self, *args):
        wait_until(self.gate.exists)
        return super().transcribe(*args)


class GatedAfterTwo(Gated):
    """Batches wait until a file exists, but the first two do not. The text of one is sent once the next is known."""

    def transcribe(self, *args):
        return super().transcribe(*args) if len(self.batches) > 1 else ScriptedRecognizer.transcribe(self, *args)


@pytest.fixture
def forked(tmp_path, request) -> Iterator[tuple[Running, int, Path]]:
    """A service in a copy of this process, its process id, and the file for which its batches wait."""
    gate, output, gated = tmp_path / "gate", tmp_path / "output", getattr(request, "param", Gated)
    settings, address = Settings(segmentation="fixed", window_seconds=4, batch_seconds=4), serve.Address(port=0)
    (pid,) = Forked(1, lambda: serve.serve(lambda: gated(gate), settings, Limits(), address), output).pids
    wait_until(lambda: output.exists() and "http://" in output.read_text())
    yield Running(re.search(r"http://\S+:\d+", output.read_text())[0], None, None), pid, gate
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_sigterm_ends_running_requests_and_refuses_new_ones(forked):
    """Four requests run when the signal comes. All are answered, a later one gets 503, and the status is 0."""
    service, pid, gate = forked
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(service.post, {}, tone(1)) for _ in range(4)]
        wait_until(lambda: service.get("/health")[1]["open_requests"] == 4)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: service.get("/health")[0] == 503)
        status, body, headers = service.post({}, tone(1))
        assert (status, body["error"]["code"], headers["retry-after"]) == (503, "draining", "2")
        gate.touch()
        assert [(result.result()[0], result.result()[1]["text"]) for result in results] == [(200, "1 s English")] * 4
    assert status_of(pid) == 0


@pytest.mark.parametrize("forked", [GatedAfterTwo], indirect=True)
def test_sigterm_ends_a_stream_with_its_result(forked):
    """The signal comes after the first part of the text. All others follow, and the status is 0."""
    service, pid, gate = forked
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("POST", "/v1/audio/transcriptions", form({"stream": "true"}, tone(20)), headers)
    answer = connection.getresponse()
    first = answer.readline()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: service.get("/health")[0] == 503)
    gate.touch()
    *deltas, done = [json.loads(line.removeprefix(b"data: ")) for line in [first, *answer] if line.strip()]
    connection.close()
    assert done["type"] == "transcript.text.done" and len(deltas) > 1
    assert "".join(each["delta"] for each in deltas) == done["text"]
    assert status_of(pid) == 0


def test_a_second_signal_ends_at_once(forked):
    service, pid, _ = forked
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(service.post, {}, tone(1))
        wait_until(lambda: service.get("/health")[1]["open_requests"] == 1)
        os.kill(pid, signal.SIGINT)
        wait_until(lambda: service.get("/health")[0] == 503)
        os.kill(pid, signal.SIGINT)
        assert status_of(pid) == 128 + signal.SIGINT
        with pytest.raises(OSError):
            result.result()


def error_of(capsys, *words: str) -> str:
    assert cli.main(["serve", *words]) == 2
    return capsys.readouterr().err


def test_a_port_that_is_taken_is_named(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = error_of(capsys, "--model", str(tmp_path), "--port", str(port))
    assert f"--port {port}: cannot listen" in message and "--port, or 0" in message


def test_an_address_of_another_machine_is_refused(capsys):
    assert "must be an address of this machine" in error_of(
        capsys, "--model", "x", "--host", "192.0.2.1", "--port", "0"
    )


def test_windows_that_are_too_short_are_refused(capsys):
    assert "window_seconds 0.1: must be at least 1" in error_of(capsys, "--model", "x", "--window_seconds", "0.1")


def test_limits_that_contradict_each_other_are_refused(capsys):
    assert "lower it, or raise --max_requests" in error_of(capsys, "--model", "x", "--max_requests", "4")


@pytest.mark.parametrize("package", serve.PACKAGES)
def test_a_missing_package_is_named(package, capsys, monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == package else find_spec(name))
    assert f"not installed ({package}); run pip install 'arkasr[serve]'" in error_of(capsys, "--model", "x")


def test_a_key_that_cannot_be_read_is_named(capsys, tmp_path):
    message = error_of(capsys, "--model", "x", "--port", "0", "--api_key_file", str(tmp_path / "none"))
    assert "--api_key_file" in message and "No such file" in message


def test_model_id_is_the_part_that_tells_models_apart(tmp_path):
    for name in ("base_opd/final", "final", "base/export"):
        (tmp_path / "exp" / name).mkdir(parents=True)
    assert serve.model_id(str(tmp_path / "exp" / "base_opd" / "final")) == "base_opd"
    assert serve.model_id(str(tmp_path / "exp" / "final")) == "exp"
    assert serve.model_id(str(tmp_path / "exp" / "base" / "export") + "/") == "base"
    assert serve.model_id("org/name") == "org/name"
    assert serve.model_id(f"qwen3_asr:{tmp_path}/exp/base_opd") == "base_opd"


def test_the_options_have_the_defaults_of_the_limits():
    args = cli.parse(["serve", "--model", "x"])[1]
    assert {name: getattr(args, name) for name in vars(Limits())} == vars(Limits())
