"""The teacher on a server gives the scores of the same local teacher, or an error that names the cause."""

from __future__ import annotations

import base64
import io
import math
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import soundfile
import torch
from arkasr_vllm import teacher as http_teacher
from arkasr_vllm import wire
from arkasr_vllm.client import Refused, Server
from arkasr_vllm.options import HttpTeacherOptions
from steps import SIZES, frozen_teacher, opd, trainable
from tiny import TEXTS, batch, student_tokenizer, teacher, teacher_tokenizer, waveform
from vllm_like_server import GENERATE, RENDER, BadRequestError, VllmLike

import arkasr
from arkasr.errors import UserError
from arkasr.model.log_mel import HOP
from arkasr.model.speech_lm.qwen3_asr import QwenSpeechLM
from arkasr.model.train_tokenizer import train_byte_bpe
from arkasr.plugins import loader, registry
from arkasr.testing import check_teacher
from arkasr.utils.timing import Phases

CLIPS = [waveform(n, seed) for seed, n in enumerate((16000, 4000, 9000))]
LANGUAGES = ["English", "Chinese", "English"]
TEXTS_TO_SCORE = ["she sells sea shells", "", "\u4f60\u597d\u4e16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the tokenizer's folder."""
    path = tmp_path_factory.mktemp("tokenizer")
    teacher_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Connect to the local servers directly, also if the environment names proxies."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("all_proxy", raising=False)
    monkeypatch.delenv("ALL_PROXY", raising=False)


@contextmanager
def connected(folder, lm=None, server=None, **options):
    """Yield a teacher with these options, and its server."""
    with (server or VllmLike(lm or teacher())).running() as server:
        yield connect(server.url, folder, **options), server


def connect(url, folder, **options):
    defaults = {"url": url, "model": "tiny", "tokenizer": folder, "top_k": 12, "wait": 0.001, "retries": 2}
    return registry.create("teacher", "qwen3_asr_http", defaults | {"max_new_tokens": 8} | options, device="cpu")


def check_refused(folder, message, **options):
    """Check that the teacher refuses to start with this message."""
    with pytest.raises(UserError, match=message), connected(folder, **options):
        pass


def transcripts():
    return [teacher().text_ids(TEXTS_TO_SCORE[0]), [teacher().stop_ids[0]], teacher().text_ids(TEXTS_TO_SCORE[2])[:-1]]


def local_view(lm, waveforms=CLIPS, languages=LANGUAGES, ids=None):
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(waveforms), languages)
        return arkasr.DenseView(lm.transcript_states(prompts, ids or transcripts()) @ lm.head.T)


def test_constants_equal_those_of_the_local_teacher():
    lm = teacher()
    for language in ("English", "Chinese"):
        prompt = http_teacher.PROMPT_PREFIX, http_teacher.PROMPT_SUFFIX.format(language=language)
        assert prompt == lm.prompt_text(language)
    assert QwenSpeechLM.stop_tokens == http_teacher.STOP_TOKENS
    assert (HOP, QwenSpeechLM.min_samples) == (wire.HOP, wire.MIN_SAMPLES)


def test_topk_equals_local_teacher(folder):
    with connected(folder, exact_ids="off") as (remote, _):
        view = remote.score(CLIPS, LANGUAGES, transcripts())
    expected = local_view(teacher()).topk(12)
    ids, values = view.topk(12)
    assert torch.equal(ids, expected[0]) and view.entropy() is None and view.vocab_size == len(teacher_tokenizer())
    torch.testing.assert_close(values, expected[1], rtol=0, atol=1e-5)


def test_exact_ids_equal_local_teacher(folder):
    with connected(folder, exact_ids="on", top_k=5) as (remote, server):
        view, dense = remote.score(CLIPS, LANGUAGES, transcripts()), local_view(teacher())
        before = server.requests[GENERATE]
        ids = torch.randint(
            len(teacher_tokenizer()), (len(dense.logits), 9), generator=torch.Generator().manual_seed(2)
        )
        torch.testing.assert_close(view.logprobs_at(ids), dense.logprobs_at(ids), rtol=0, atol=1e-5)
        assert server.requests[GENERATE] - before == 2 * len(CLIPS)  # up to nine ids, in requests of at most five
        rows = torch.tensor([len(dense.logits) - 1, 0, 0])
        torch.testing.assert_close(
            view.at(rows).logprobs_at(ids[rows]), dense.logprobs_at(ids)[rows], rtol=0, atol=1e-5
        )
        assert server.requests[GENERATE] - before == 2 * len(CLIPS)  # the values are cached
        view.at(torch.tensor([0])).logprobs_at(torch.tensor([[1, 2, 3]]))
        assert server.requests[GENERATE] - before == 2 * len(CLIPS) + 1  # only that clip is requested


def test_invalid_clips_and_languages_give_the_local_teachers_message(folder):
    """Nothing is sent: the server would pad an empty clip with silence, and accept any language in the prompt."""
    bad = [(torch.zeros(0), "English"), (torch.full((1600,), torch.nan), "English"), (CLIPS[0], "Klingon")]
    with connected(folder) as (remote, server):
        before = server.requests.copy()
        for clip, language in bad:
            with pytest.raises(UserError) as expected:
                local_view(teacher(), [clip], [language], [[5]])
            for call in (lambda c, n: remote.score(c, n, [[5]]), remote.transcribe):
                with pytest.raises(UserError) as error:
                    call([clip], [language])
                assert str(error.value) == str(expected.value)
        assert server.requests == before


def test_scores_of_transcript_tokens_need_no_exact_ids(folder):
    with connected(folder, exact_ids="off", top_k=1) as (remote, _):
        view = remote.score(CLIPS, LANGUAGES, transcripts())
    tokens = torch.tensor([i for ids in transcripts() for i in ids])[:, None]
    torch.testing.assert_close(view.logprobs_at(tokens), local_view(teacher()).logprobs_at(tokens), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("exact", ["on", "off"])
def test_teacher_passes_the_conformance_checks(folder, exact):
    with connected(folder, exact_ids=exact) as (remote, _):
        check_teacher(remote)


def test_transcripts_equal_local_teacher(folder):
    lm = frozen_teacher().lm
    with connected(folder, lm) as (remote, _):
        texts = remote.transcribe(CLIPS, LANGUAGES)
    expected = arkasr.generate(lm, lm.embed_prompts(lm.encode_audio(CLIPS), LANGUAGES), [8] * len(CLIPS))
    assert texts == [lm.text(ids) for ids in expected.ids] and any(texts)
    assert [text.stopped for text in texts] == expected.stopped
    assert [text.num_tokens for text in texts] == [len(ids) for ids in expected.ids]
    assert [text.looping for text in texts] == [arkasr.is_looping(ids, lm.stop_ids) for ids in expected.ids]


@pytest.mark.parametrize(("reason", "stopped"), [("length", False), ("stop", True), (None, False), (7, False)])
def test_transcript_is_cut_if_the_server_says_so(folder, reason, stopped):
    with connected(folder) as (remote, server):
        server.changes[GENERATE] = lambda r: r["choices"][0].update(finish_reason=reason, token_ids=[5]) or r
        [text] = remote.transcribe(CLIPS[:1], LANGUAGES[:1])
    assert (text.stopped, text.looping, text.num_tokens) == (stopped, False, 1)


@pytest.mark.parametrize("ids", [None, "5", [True], [-1], [1.5], ["5"], [10**9], {"a": 1}, [[5]]])
def test_generated_ids_that_are_no_tokens_are_refused(folder, ids):
    with connected(folder) as (remote, server):
        server.changes[GENERATE] = lambda r: r["choices"][0].update(token_ids=ids) or r
        with pytest.raises(UserError, match=f"{re.escape(server.url)}.*generated tokens.*check that the server"):
            remote.transcribe(CLIPS[:1], LANGUAGES[:1])


def test_audio_arrives_unrounded_in_whole_frames(folder):
    clip = waveform(9000) / 3
    with connected(folder) as (remote, server):
        remote.score([clip, clip[:200]], ["English"] * 2, [[1], [1]])
        sent = [body for path, body in server.bodies if path == RENDER][-2:]
    urls = [body["messages"][0]["content"][0]["audio_url"]["url"] for body in sent]
    received = [soundfile.read(io.BytesIO(base64.b64decode(url.split(",")[1])), dtype="float32")[0] for url in urls]
    received.sort(key=lambda samples: -len(samples))
    assert numpy.array_equal(received[0], clip[:8960].numpy())  # whole frames of 160 samples
    assert numpy.array_equal(received[1][:160], clip[:160].numpy())
    assert len(received[1]) == 8000 and not received[1][160:].any()


# A whole step


def step(step_teacher, k=6):
    lm = trainable()
    objective = opd(lm, step_teacher, k=k)
    scored = objective.collect(lm, batch(SIZES), Phases())
    total, count = objective.rescore(lm, scored, diagnose=True)
    total.backward()
    return scored, float(total.detach()), int(count), lm.head.grad


@pytest.fixture
def one_thread():
    """Sums in one order: with several threads, float32 gradients of size 10 differ in their last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_step_with_exact_ids_equals_step_with_local_teacher(folder, one_thread):
    scored, total, count, gradient = step(None)
    with connected(folder, frozen_teacher().lm, exact_ids="on", top_k=6) as (remote, _):
        remote_scored, remote_total, remote_count, remote_gradient = step(remote)
    assert remote_scored.rollout.generation.ids == scored.rollout.generation.ids
    assert remote_count == count > 10 and remote_total == pytest.approx(total, rel=1e-5) and total > 0.1
    torch.testing.assert_close(remote_gradient, gradient, rtol=1e-4, atol=1e-6)
    assert float(remote_scored.sums["kl/all"]) == pytest.approx(float(scored.sums["kl/all"]), rel=1e-5)


def test_loss_without_exact_ids_obeys_the_documented_bound(folder):
    """With eps the teacher's share of a support outside its best tokens: KL' <= (KL + h(eps)) / (1 - eps)."""
    scored, total, count, _ = step(None)
    with connected(folder, frozen_teacher().lm, exact_ids="off", top_k=6) as (remote, _):
        _, remote_total, remote_count, _ = step(remote)
    valid, ids = scored.support.valid, scored.support.teacher_ids
    shares = scored.teacher_view.logprobs_at(ids).masked_fill(~valid, -torch.inf).softmax(-1)
    best = (ids[:, :, None] == scored.teacher_view.topk(6)[0][:, None]).any(-1)
    outside = (shares * ~best).sum(-1)[valid.sum(-1) >= 2].tolist()
    entropy = sum(-e * math.log(e) - (1 - e) * math.log1p(-e) for e in outside if e > 0)
    assert 0 < remote_count <= count and 0 < max(outside) < 0.5
    assert abs(remote_total - total) > 1e-3 and remote_total <= (total + entropy) / (1 - max(outside))


def test_distill_top_k_above_teacher_top_k_is_refused(folder):
    with (
        connected(folder, frozen_teacher().lm, top_k=5) as (remote, _),
        pytest.raises(UserError, match=r"only 5 tokens .* top 6 .*top_k"),
    ):
        step(remote)


# Missing features of the server


class Unable(VllmLike):
    """Knows the parameter but cannot serve it."""

    def _exact(self, logprobs, start, wanted):
        raise BadRequestError("prompt_logprob_token_ids needs the V2 model runner")


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (VllmLike(teacher(), exact=False), "the response has no prompt_token_id_logprobs"),
        (Unable(teacher()), "status 400: prompt_logprob_token_ids needs the V2 model runner"),
    ],
    ids=["ignores", "refuses"],
)
def test_auto_warns_when_the_server_scores_no_chosen_ids(folder, server, message):
    with server.running():
        with pytest.warns(UserWarning, match=f"{message}.*count as impossible"):
            remote = connect(server.url, folder)
        view = remote.score(CLIPS, LANGUAGES, transcripts())
    assert bool(view.logprobs_at(local_view(teacher()).topk(13)[0][:, 12:]).isneginf().any())
    check_refused(folder, rf"127\.0\.0\.1.*{message}.*exact_ids=on needs them", server=server, exact_ids="on")


def test_top_k_above_the_servers_limit_is_refused_at_the_start(folder):
    check_refused(folder, "status 400: Requested prompt logprobs of 21, which is greater than max allowed", top_k=21)


def test_loss_over_all_tokens_is_refused(folder):
    with connected(folder, top_k=2) as (remote, _):
        view = remote.score(CLIPS, LANGUAGES, transcripts())
        with pytest.raises(UserError, match="further tokens per position.*top-k support, or a local teacher"):
            view.logprobs_at(torch.arange(view.vocab_size).expand(len(view.topk(1)[0]), -1))


def test_missing_endpoint_is_named(folder):
    server = VllmLike(teacher())
    server.failures[RENDER] = [(404, '{"detail": "Not Found"}')] * 9
    check_refused(folder, rf"{RENDER}: refused with status 404: Not Found; use a vLLM version that has", server=server)


def test_server_without_tokenize_is_accepted(folder):
    server = VllmLike(teacher())
    server.failures["/tokenize"] = [(404, "")]
    with connected(folder, server=server) as (remote, _):
        assert len(remote.score(CLIPS, LANGUAGES, transcripts()).topk(1)[0]) == sum(map(len, transcripts()))


# Servers that are unreachable, slow or busy


def score_one(remote):
    return remote.score(CLIPS[:1], LANGUAGES[:1], transcripts()[:1]).topk(3)[1]


def test_busy_server_is_retried_after_doubling_waits(folder, monkeypatch):
    with connected(folder, retries=3, wait=0.5) as (remote, server):
        expected, waits, before = score_one(remote), [], server.requests[GENERATE]
        monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waits.append))
        server.failures[GENERATE] = [(503, "loading"), (500, "oops"), (429, "later")]
        assert torch.equal(score_one(remote), expected)
        assert waits == [0.5, 1.0, 2.0] and server.requests[GENERATE] - before == 4


@pytest.mark.parametrize(("status", "attempts"), [(408, 2), (425, 2), (502, 2), (501, 1), (505, 1), (404, 1)])
def test_only_transient_statuses_are_retried(status, attempts):
    with VllmLike(teacher()).running() as server:
        server.failures["/v1/models"] = [(status, "busy")]
        reached = Server(server.url, retries=2, wait=0.0)
        if attempts == 1:
            with pytest.raises(Refused, match=f"refused with status {status}: busy") as error:
                reached.get("/v1/models")
            assert error.value.status == status
        else:
            assert reached.get("/v1/models")["object"] == "list"
        assert server.requests["/v1/models"] == attempts


@contextmanager
def listening(answer):
    """Serve connections with a function of the connected socket, and yield the address."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()


def send(connection, *parts):
    """Answer one request with the parts, and close the connection."""
    with suppress(OSError), connection:
        connection.recv(2**16)
        for part in parts:
            connection.sendall(part)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("same_host", [True, False])
def test_redirects_are_refused_and_the_key_stays_with_the_server(status, same_host):
    received = []

    def other(connection):
        received.append(connection.recv(2**16))
        send(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with listening(other) as elsewhere:
        place = "/other" if same_host else f"{elsewhere}/v1/models"
        head = f"HTTP/1.1 {status} Moved\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
        message = rf"redirects to {re.escape(place)}.*set teacher\.options\.url"
        with listening(lambda connection: send(connection, head)) as url, pytest.raises(Refused, match=message):
            Server(url, key="hunter2", retries=0).get("/v1/models")
    assert received == []


def test_unbounded_answer_is_refused_after_what_the_request_needs():
    sent = []

    def endless(connection):
        with suppress(OSError), connection:
            connection.recv(2**16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            for _ in range(1000):
                connection.sendall(b" " * 2**16)
                sent.append(2**16)

    with listening(endless) as url, pytest.raises(UserError, match=r"has more than 10\d+ bytes"):
        Server(url, retries=0).post("/generate", {}, expected=1000)
    assert sum(sent) < 2**25  # what the sockets buffer


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"], ids=["head", "body"])
def test_slow_drip_ends_at_the_deadline(start):
    def drip(connection):
        with suppress(OSError), connection:
            connection.recv(2**16)
            connection.sendall(start)
            for _ in range(1000):
                connection.sendall(b"H")
                time.sleep(0.02)

    with listening(drip) as url, pytest.raises(UserError, match=r"not complete after 0\.3 s \(teacher\.options\.dead"):
        Server(url, timeout=5.0, deadline=0.3, retries=1, wait=0.0).get("/v1/models")


def test_terminal_escapes_of_a_server_are_not_printed():
    with VllmLike(teacher()).running() as server:
        server.failures["/v1/models"] = [(400, '{"error": "\\u001b[2Jgone\\u0007"}'), (200, "\x1b]0;title\x07 <html>")]
        for message in (r"\\x1b\[2Jgone", r"\\x1b\]0;title"):
            with pytest.raises(UserError, match=message) as error:
                Server(server.url, retries=0).get("/v1/models")
            assert str(error.value).isprintable()


def test_connection_is_reused():
    with VllmLike(teacher()).running() as server:
        reached = Server(server.url)
        for _ in range(3):
            reached.get("/v1/models")
        assert server.connections == 1 and server.requests["/v1/models"] == 3


class Proxy(VllmLike):
    """Answers as an HTTP proxy, to which a client sends whole addresses."""

    def answer(self, path, text, key):
        host, path = path.partition("/v1/")[::2]
        return super().answer("/v1/" + path, text, key) if host == "http://teacher.invalid:8000" else (502, host)


def test_proxy_of_the_environment_is_used_except_for_no_proxy(monkeypatch):
    with Proxy(teacher()).running() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert Server("http://teacher.invalid:8000", retries=0).get("/v1/models")["object"] == "list"
        monkeypatch.setenv("no_proxy", "teacher.invalid")
        with pytest.raises(UserError, match="http://teacher.invalid:8000/v1/models: no valid response after 1 attempt"):
            Server("http://teacher.invalid:8000", retries=0).get("/v1/models")
    assert proxy.requests == {"/v1/models": 1}


def test_unusable_proxy_of_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("http_proxy", "ftp://proxy:21")
    with pytest.raises(UserError, match="names a proxy that cannot be used: .*ftp"):
        Server("http://teacher.invalid:8000")


def test_invalid_address_is_named():
    with pytest.raises(UserError, match="http://teacher:port/v1/models: is not a valid address .*options.url"):
        Server("http://teacher:port").get("/v1/models")


def test_permanently_failing_server_gives_an_error_with_its_message(folder):
    with connected(folder, retries=2) as (remote, server):
        server.failures[GENERATE] = [(500, '{"error": {"message": "CUDA out of memory"}}')] * 9
        with pytest.raises(UserError) as failure:
            score_one(remote)
    message = rf"{server.url}{GENERATE}: no valid response after 3 attempts in \d+\.\d s; "
    message += "last failure: status 500: CUDA out of memory; check"
    assert re.match(message, str(failure.value))


def test_refusal_is_not_retried(folder):
    with connected(folder) as (remote, server):
        before = server.requests[GENERATE]
        server.failures[GENERATE] = [(400, '{"error": {"message": "The prompt is too long"}}')]
        with pytest.raises(
            UserError, match=f"{server.url}{GENERATE}: refused with status 400: The prompt is too long$"
        ):
            score_one(remote)
        assert server.requests[GENERATE] - before == 1


def test_slow_server_gives_a_time_out(folder):
    with connected(folder, retries=1) as (remote, server):
        remote.scorer.server.timeout = 0.05
        server.delays[GENERATE] = lambda number: 0.3
        with pytest.raises(
            UserError, match=r"after 2 attempts .*: nothing was received for 0\.05 s \(teacher\.options\.timeout\)"
        ):
            score_one(remote)


def test_unreachable_server_is_named(folder):
    with socket.socket() as bound:  # it does not listen, so connections are refused
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        message = rf"{address}/v1/models: no valid response after 3 attempts .*refused.*teacher\.options\.url"
        with pytest.raises(UserError, match=message):
            connect(address, folder)


def test_closed_connection_is_retried(folder):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)

        def hang_up():
            for _ in range(3):
                listening.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(UserError, match="no valid response after 3 attempts"):
            connect(f"http://127.0.0.1:{listening.getsockname()[1]}", folder)
        thread.join(60)
    assert not thread.is_alive()


# Servers with other responses


def test_other_model_is_refused(folder):
    check_refused(
        folder,
        r"/v1/models: serves other, not 'tiny'; set teacher\.options\.model",
        server=VllmLike(teacher(), name="other"),
    )


def test_other_tokenizer_is_refused(folder):
    other = teacher(tokenizer=train_byte_bpe(TEXTS[:3], 300))
    check_refused(folder, rf"/tokenize: .*other tokens than {folder}.*those of another model", server=VllmLike(other))


class Noisy(VllmLike):
    """Gives different scores for equal requests."""

    def _logprobs(self, embeds):
        exact = super()._logprobs(embeds)
        return (exact + 0.01 * torch.randn(exact.shape)).log_softmax(-1)


class IgnoresAudio(VllmLike):
    """Accepts audio features and ignores them."""

    def _encode(self, audio):
        return torch.zeros_like(super()._encode(audio))


class NoisyIgnoresAudio(Noisy, IgnoresAudio):
    """Gives different scores for equal requests, and ignores the audio."""


@pytest.mark.parametrize("kind", [IgnoresAudio, NoisyIgnoresAudio])
def test_server_that_ignores_audio_is_refused(folder, kind):
    check_refused(folder, "same scores for a tone and for silence", server=kind(teacher()))


def test_noisy_server_that_uses_audio_is_accepted(folder):
    with connected(folder, server=Noisy(teacher()), exact_ids="on") as (remote, _):
        values = remote.score(CLIPS, LANGUAGES, transcripts()).topk(1)[1]
    torch.testing.assert_close(values, local_view(teacher()).topk(1)[1], rtol=0, atol=0.1)


def test_folder_without_a_qwen_tokenizer_is_named(folder, tmp_path):
    with VllmLike(teacher()).running() as server:
        with pytest.raises(UserError, match=rf"{tmp_path}: cannot be read as a tokenizer"):
            connect(server.url, str(tmp_path))
        student_tokenizer().save_pretrained(tmp_path)
        with pytest.raises(UserError, match=rf"{tmp_path}: the tokenizer lacks .*<\|audio_pad\|>"):
            connect(server.url, str(tmp_path))


def rows_changed(change):
    """Return a change of a response that replaces its last row of scores."""

    def changed(response):
        response["prompt_logprobs"][-1] = change(response["prompt_logprobs"][-1])
        return response

    return changed


def first_value(value):
    return rows_changed(lambda row: {key: {"logprob": value} for key in list(row)[:1]} | dict(list(row.items())[1:]))


def shifted(response):
    response["prompt_logprobs"].append(response["prompt_logprobs"].pop(1))
    return response


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: "<html>nginx</html>", "response is '<html>nginx</html>', not a JSON object"),
        (lambda r: "[1]", "not a JSON object"),
        (lambda r: '{"prompt_logprobs": [', "not a JSON object"),
        (lambda r: '{"prompt_logprobs": ' + "[" * 100_000 + "]" * 100_000 + "}", "not a JSON object"),
        (lambda r: '{"prompt_logprobs": ' + "9" * 5000 + "}", "not a JSON object"),
        (first_value(10**400), "prompt_logprobs holds"),
        (first_value("-0.5"), "prompt_logprobs holds"),
        (first_value(None), "prompt_logprobs holds"),
        (first_value([[[]]]), "prompt_logprobs holds"),
        (first_value(True), "prompt_logprobs holds"),
        (rows_changed(lambda row: row | {"-1": {"logprob": -99.0}}), "prompt_logprobs holds"),
        (rows_changed(lambda row: row | {"1_0": {"logprob": -99.0}}), "prompt_logprobs holds"),
        (rows_changed(lambda row: row | {"1" * 30: {"logprob": -99.0}}), "prompt_logprobs holds"),
        (rows_changed(lambda row: row | {"99999999": {"logprob": -99.0}}), "scores of token 99999999"),
        (rows_changed(lambda row: row | {"0" + next(iter(row)): {"logprob": -99.0}}), "12 tokens per position"),
        (lambda r: r | {"prompt_logprobs": None}, "has no prompt_logprobs"),
        (lambda r: r | {"prompt_logprobs": r["prompt_logprobs"][1:]}, r"tokens were sent, \d+ were scored"),
        (shifted, r"token \d+ was sent, but its row does not hold it"),
        (rows_changed(lambda row: dict(list(row.items())[:3])), "12 tokens per position were requested, 3 returned"),
        (rows_changed(lambda row: None), "prompt_logprobs holds None"),
        (rows_changed(lambda row: row | {"x": {"logprob": -1.0}}), "prompt_logprobs holds"),
        (rows_changed(lambda row: dict.fromkeys(row, 1.0)), "prompt_logprobs holds"),
        (first_value(float("nan")), "these are not log-probabilities"),
        (first_value(3.5), "these are not log-probabilities.*--logprobs-mode"),
        (rows_changed(lambda row: {key: {"logprob": -0.5} for key in row}), "these are not log-probabilities"),
    ],
)
def test_response_that_holds_no_valid_scores_is_refused(folder, change, message):
    with connected(folder) as (remote, server):
        server.changes[GENERATE] = change
        before = server.requests[GENERATE]
        with pytest.raises(UserError, match=f"{re.escape(server.url + GENERATE)}: .*{message}"):
            score_one(remote)
        assert server.requests[GENERATE] - before == 1


def array_of_shape(shape):
    """Return a .npy file without values, whose header names any shape, in base64."""
    file = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "has no prompt_token_id_logprobs"),
        ("bm90IG5weQ==", "cannot be read"),
        ("?", "cannot be read"),
        (numpy.zeros((2, 2), numpy.float32), r"is float32 \[2, 2\], not float32"),
        (numpy.full((5, 1), 0.5, numpy.float32), "values up to 0.5, not log-probabilities"),
        (numpy.full((5, 1), numpy.nan, numpy.float32), "values up to nan, not log-probabilities"),
        (numpy.zeros((5, 1), numpy.int64), "is int64"),
        (array_of_shape((10**13, 1)), "cannot be read"),
    ],
)
def test_invalid_exact_scores_are_refused(folder, value, message):
    if isinstance(value, numpy.ndarray):
        file = io.BytesIO()
        numpy.save(file, value)
        value = base64.b64encode(file.getvalue()).decode()
    with connected(folder) as (remote, server):
        view = remote.score(CLIPS[:1], LANGUAGES[:1], [[4, 5, 6, 7, 8]])
        server.changes[GENERATE] = lambda r: r | {"prompt_token_id_logprobs": value}
        worst = local_view(teacher(), CLIPS[:1], LANGUAGES[:1], [[4, 5, 6, 7, 8]]).logits.argmin(-1)[:, None]
        with pytest.raises(UserError, match=f"{re.escape(server.url + GENERATE)}: .*{message}"):
            view.logprobs_at(worst)


def test_exact_scores_that_differ_from_the_first_are_refused_at_the_start(folder):
    server = VllmLike(teacher())
    server._exact = lambda logprobs, start, wanted: VllmLike._exact(server, logprobs - 0.2, start, wanted)
    check_refused(folder, "the scores of chosen token ids differ from prompt_logprobs", server=server)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r | {"features": None}, "does not hold the features of one clip"),
        (lambda r: r["features"].update(kwargs_data=None) or r, "--mm-processor-cache-gb 0"),
        (lambda r: r["features"].update(kwargs_data={"audio": [None]}) or r, "--mm-processor-cache-gb 0"),
        (lambda r: r["features"]["mm_placeholders"]["audio"][0].update(offset=2) or r, "placed other tokens"),
    ],
)
def test_unusable_features_are_refused(folder, change, message):
    with connected(folder) as (remote, server):
        server.changes[RENDER] = change
        with pytest.raises(UserError, match=f"{re.escape(server.url + RENDER)}: .*{message}"):
            score_one(remote)


def test_response_without_generated_tokens_is_refused(folder):
    with connected(folder) as (remote, server):
        server.changes[GENERATE] = lambda r: r | {"choices": []}
        with pytest.raises(UserError, match="holds no generated tokens"):
            remote.transcribe(CLIPS[:1], LANGUAGES[:1])


def test_servers_minus_infinity_is_read_as_minus_infinity(folder):
    with connected(folder, exact_ids="off") as (remote, server):
        worst = local_view(teacher(), CLIPS[:1], LANGUAGES[:1], [[5]]).topk(12)[0][:, 11:]
        server.changes[GENERATE] = rows_changed(lambda row: row | {str(int(worst)): {"logprob": -9999.0}})
        view = remote.score(CLIPS[:1], LANGUAGES[:1], [[5]])
    assert float(view.logprobs_at(worst)) == -math.inf and float(view.topk(view.vocab_size)[1][0, -1]) == -math.inf


def test_ids_above_the_tokenizers_size_are_kept(folder):
    wide = len(teacher_tokenizer()) + 7
    with connected(folder, exact_ids="off") as (remote, server):
        server.changes[GENERATE] = rows_changed(lambda row: row | {str(wide): {"logprob": -30.0}})
        view = remote.score(CLIPS[:1], LANGUAGES[:1], [[5]])
    assert view.vocab_size == wide + 1 and float(view.logprobs_at(torch.tensor([[wide]]))) == -30.0


# Concurrency


def test_clips_are_scored_simultaneously_and_keep_their_order(folder):
    together = threading.Barrier(3)
    with connected(folder, concurrency=3) as (remote, server):
        expected = local_view(teacher()).topk(4)

        def wait(number):
            together.wait(60)  # breaks unless three requests are in progress
            return 0.05 * (number % 3)

        server.delays[RENDER] = wait
        ids, values = remote.score(CLIPS, LANGUAGES, transcripts()).topk(4)
    assert torch.equal(ids, expected[0]) and not together.broken
    torch.testing.assert_close(values, expected[1], rtol=0, atol=1e-5)


def test_concurrency_one_sends_one_request_at_a_time(folder):
    busy = threading.Lock()
    overlaps = []
    with connected(folder, concurrency=1) as (remote, server):

        def wait(number):
            overlaps.append(not busy.acquire(blocking=False))
            busy.release()
            return 0.0

        server.delays[RENDER] = wait
        remote.score(CLIPS, LANGUAGES, transcripts())
    assert overlaps == [False] * 3


# Options


@pytest.fixture
def no_packages(monkeypatch):
    """Hide all installed plugin packages."""
    monkeypatch.setattr(loader, "entry_points", lambda group: [])
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()


def test_configuration_without_the_package_gets_an_error_that_names_it(no_packages):
    with pytest.raises(UserError, match="it needs the package arkasr-vllm: pip install ./plugins/arkasr-vllm; avail"):
        registry.check_plugin("teacher", "qwen3_asr_http", {"url": "http://localhost:1"})


def test_key_is_sent_and_never_shown(folder, monkeypatch):
    monkeypatch.setenv("TINY_KEY", "open-sesame")
    with VllmLike(teacher(), key="open-sesame").running() as server:
        connect(server.url, folder, api_key_env="TINY_KEY")
        with pytest.raises(UserError, match="refused with status 401: Unauthorized$"):
            connect(server.url, folder)
        monkeypatch.setenv("TINY_KEY", "wrong-secret")
        with pytest.raises(UserError) as failure:
            connect(server.url, folder, api_key_env="TINY_KEY")
    assert "wrong-secret" not in str(failure.value)


def test_key_that_no_header_can_hold_is_refused_without_showing_it(monkeypatch):
    for key in ("line\n", "two words", "schl\u00fcssel"):
        monkeypatch.setenv("TINY_KEY", key)
        with pytest.raises(UserError, match="api_key_env='TINY_KEY': the key must be printable ASCII") as error:
            registry.check_plugin("teacher", "qwen3_asr_http", {"api_key_env": "TINY_KEY"})
        assert key not in str(error.value)
    assert "secret" not in repr(Server("http://localhost", "secret"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "url='localhost:8000': must be http://"),
        ({"url": "http://localhost:8000/v1/"}, "without /v1"),
        ({"top_k": 0}, "top_k=0: must be at least 1"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": 0.0}, "timeout=0.0"),
        ({"retries": -1}, "retries=-1"),
        ({"exact_ids": "maybe"}, "exact_ids"),
        ({"api_key_env": "NOT_THERE_AT_ALL"}, "api_key_env='NOT_THERE_AT_ALL'"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        registry.check_plugin("teacher", "qwen3_asr_http", {"url": "http://localhost:1"} | options)


def test_checking_options_imports_neither_torch_nor_http_client():
    code = (
        "import sys; from arkasr.plugins.registry import check_plugin;"
        "check_plugin('teacher', 'qwen3_asr_http', {'url': 'http://x'});"
        "names = ('torch', 'transformers', 'httpx2', 'tenacity', 'urllib.request', 'soundfile');"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_readme_lists_all_options_with_their_defaults():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:3] == "| `"]
    expected = {item.name: f"`{item.default}`" if item.default != "" else '`""`' for item in fields(HttpTeacherOptions)}
    assert {name.strip("`"): default for name, default, _ in rows} == expected
