"""The teacher behind a server gives the scores of the same teacher in this process, or says what is wrong."""

from __future__ import annotations

import base64
import io
import math
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy
import pytest
import soundfile
import torch
from arkasr_vllm import client, wire
from steps import SIZES, frozen_teacher, opd, trainable
from tiny import TEXTS, batch, student_tokenizer, teacher, teacher_tokenizer, waveform
from vllm_like_server import GENERATE, RENDER, BadRequest, VllmLike

import arkasr
from arkasr.errors import UserError
from arkasr.model.log_mel import HOP
from arkasr.model.speech_lm.qwen3_asr import QwenSpeechLM
from arkasr.model.tokenization import train_byte_bpe
from arkasr.plugins import registry
from arkasr.testing import check_teacher
from arkasr.utils.timing import Phases

CLIPS = [waveform(n, seed) for seed, n in enumerate((16000, 4000, 9000))]
LANGUAGES = ["English", "Chinese", "English"]
SAID = ["she sells sea shells", "", "\u4f60\u597d\u4e16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tokenizer's folder."""
    path = tmp_path_factory.mktemp("tokenizer")
    teacher_tokenizer().save_pretrained(path)
    return str(path)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@contextmanager
def connected(folder, lm=None, served=None, **options):
    """Yield a teacher and its server; options are the teacher's, `served` the server."""
    with (served or VllmLike(lm or teacher())).running() as server:
        yield make(server.url, folder, **options), server


def make(url, folder, **options):
    given = {"url": url, "model": "tiny", "tokenizer": folder, "top_k": 12, "wait": 0.001, "retries": 2}
    return registry.create("teacher", "qwen3_asr_http", given | {"max_new_tokens": 8} | options, device="cpu")


def refused(folder, sentence, **options):
    """See that a teacher is not made, for this reason."""
    with pytest.raises(UserError, match=sentence), connected(folder, **options):
        pass


def transcripts():
    return [teacher().text_ids(SAID[0]), [teacher().stop_ids[0]], teacher().text_ids(SAID[2])[:-1]]


def local(lm, waveforms=CLIPS, languages=LANGUAGES, ids=None):
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(waveforms), languages)
        return arkasr.DenseView(lm.transcript_states(prompts, ids or transcripts()) @ lm.head.T)


def test_it_sends_what_the_local_teacher_reads():
    lm = teacher()
    for language in ("English", "Chinese"):
        assert (teacher.BEFORE, teacher.AFTER.format(language=language)) == lm.prompt_text(language)
    assert QwenSpeechLM.stop_tokens == teacher.STOPS
    assert (HOP, QwenSpeechLM.min_samples) == (wire.HOP, wire.SHORTEST)


def test_the_best_are_those_of_the_local_teacher(folder):
    with connected(folder, exact_ids="off") as (remote, _):
        view = remote.score(CLIPS, LANGUAGES, transcripts())
    expected = local(teacher()).topk(12)
    ids, values = view.topk(12)
    assert torch.equal(ids, expected[0]) and view.entropy() is None and view.vocab_size == len(teacher_tokenizer())
    torch.testing.assert_close(values, expected[1], rtol=0, atol=1e-5)


def test_exact_ids_are_those_of_the_local_teacher(folder):
    with connected(folder, exact_ids="on", top_k=5) as (remote, server):
        view, dense = remote.score(CLIPS, LANGUAGES, transcripts()), local(teacher())
        before = server.requests[GENERATE]
        ids = torch.randint(
            len(teacher_tokenizer()), (len(dense.logits), 9), generator=torch.Generator().manual_seed(2)
        )
        torch.testing.assert_close(view.logprobs_at(ids), dense.logprobs_at(ids), rtol=0, atol=1e-5)
        assert server.requests[GENERATE] - before == 2 * len(CLIPS)  # up to nine ids in portions of five
        rows = torch.tensor([len(dense.logits) - 1, 0, 0])
        torch.testing.assert_close(
            view.at(rows).logprobs_at(ids[rows]), dense.logprobs_at(ids)[rows], rtol=0, atol=1e-5
        )
        assert server.requests[GENERATE] - before == 2 * len(CLIPS)  # it is kept
        view.at(torch.tensor([0])).logprobs_at(torch.tensor([[1, 2, 3]]))
        assert server.requests[GENERATE] - before == 2 * len(CLIPS) + 1  # only the clip that is meant is asked for


def test_clips_and_languages_are_refused_as_the_local_teacher_refuses_them(folder):
    """Nothing is sent: a server would fill an empty clip up with silence, and write any language into the prompt."""
    bad = [(torch.zeros(0), "English"), (torch.full((1600,), torch.nan), "English"), (CLIPS[0], "Klingon")]
    with connected(folder) as (remote, server):
        before = server.requests.copy()
        for clip, language in bad:
            with pytest.raises(UserError) as here:
                local(teacher(), [clip], [language], [[5]])
            for ask in (lambda c, n: remote.score(c, n, [[5]]), remote.transcribe):
                with pytest.raises(UserError) as there:
                    ask([clip], [language])
                assert str(there.value) == str(here.value)
        assert server.requests == before


def test_what_is_read_is_known_without_exact_ids(folder):
    with connected(folder, exact_ids="off", top_k=1) as (remote, _):
        view = remote.score(CLIPS, LANGUAGES, transcripts())
    read = torch.tensor([i for ids in transcripts() for i in ids])[:, None]
    torch.testing.assert_close(view.logprobs_at(read), local(teacher()).logprobs_at(read), rtol=0, atol=1e-5)


@pytest.mark.parametrize("exact", ["on", "off"])
def test_it_keeps_the_promises_of_a_teacher(folder, exact):
    with connected(folder, exact_ids=exact) as (remote, _):
        check_teacher(remote)


def test_transcripts_are_those_of_the_local_teacher(folder):
    lm = frozen_teacher().lm
    with connected(folder, lm) as (remote, _):
        found = remote.transcribe(CLIPS, LANGUAGES)
    made = arkasr.generate(lm, lm.embed_prompts(lm.encode_audio(CLIPS), LANGUAGES), [8] * len(CLIPS))
    assert found == [lm.text(ids) for ids in made.ids] and any(found)


def test_the_audio_arrives_as_it_was(folder):
    clip = waveform(9000) / 3
    with connected(folder) as (remote, server):
        remote.score([clip, clip[:200]], ["English"] * 2, [[1], [1]])
        sent = [body for path, body in server.bodies if path == RENDER][-2:]
    urls = [body["messages"][0]["content"][0]["audio_url"]["url"] for body in sent]
    heard = [soundfile.read(io.BytesIO(base64.b64decode(url.split(",")[1])), dtype="float32")[0] for url in urls]
    heard.sort(key=lambda samples: -len(samples))
    assert numpy.array_equal(heard[0], clip[:8960].numpy())  # whole hops
    assert numpy.array_equal(heard[1][:160], clip[:160].numpy()) and len(heard[1]) == 8000 and not heard[1][160:].any()


# A whole step


def step(its_teacher, k=6):
    lm = trainable()
    one = opd(lm, its_teacher, k=k)
    made = one.collect(lm, batch(SIZES), Phases())
    total, count = one.rescore(lm, made, diagnose=True)
    total.backward()
    return made, float(total.detach()), int(count), lm.head.grad


def test_a_step_is_that_of_the_local_teacher_with_exact_ids(folder):
    made, total, count, gradient = step(None)
    with connected(folder, frozen_teacher().lm, exact_ids="on", top_k=6) as (remote, _):
        remote_made, remote_total, remote_count, remote_gradient = step(remote)
    assert remote_made.rollout.made.ids == made.rollout.made.ids
    assert remote_count == count > 10 and remote_total == pytest.approx(total, rel=1e-5) and total > 0.1
    torch.testing.assert_close(remote_gradient, gradient, rtol=1e-4, atol=1e-6)
    assert float(remote_made.sums["kl/all"]) == pytest.approx(float(made.sums["kl/all"]), rel=1e-5)


def test_without_exact_ids_the_loss_is_bounded_as_documented(folder):
    """With eps the teacher's share of a support outside its best: KL' <= (KL + h(eps)) / (1 - eps)."""
    made, total, count, _ = step(None)
    with connected(folder, frozen_teacher().lm, exact_ids="off", top_k=6) as (remote, _):
        _, remote_total, remote_count, _ = step(remote)
    valid, ids = made.support.valid, made.support.teacher_ids
    shares = made.teacher_view.logprobs_at(ids).masked_fill(~valid, -torch.inf).softmax(-1)
    best = (ids[:, :, None] == made.teacher_view.topk(6)[0][:, None]).any(-1)
    outside = (shares * ~best).sum(-1)[valid.sum(-1) >= 2].tolist()
    entropy = sum(-e * math.log(e) - (1 - e) * math.log1p(-e) for e in outside if e > 0)
    assert 0 < remote_count <= count and 0 < max(outside) < 0.5
    assert abs(remote_total - total) > 1e-3 and remote_total <= (total + entropy) / (1 - max(outside))


def test_more_than_the_server_is_asked_for_is_refused(folder):
    with (
        connected(folder, frozen_teacher().lm, top_k=5) as (remote, _),
        pytest.raises(UserError, match=r"the 6 best .* knows only 5; .*top_k"),
    ):
        step(remote)


# What the server does not offer


class Unable(VllmLike):
    """It knows the parameter and cannot serve it."""

    def _exact(self, logprobs, start, asked):
        raise BadRequest("prompt_logprob_token_ids needs the V2 model runner")


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        (VllmLike(teacher(), exact=False), "the answer has no prompt_token_id_logprobs"),
        (Unable(teacher()), "status 400: prompt_logprob_token_ids needs the V2 model runner"),
    ],
    ids=["ignores", "refuses"],
)
def test_auto_says_when_a_server_scores_no_named_ids(folder, lacking, words):
    with lacking.running():
        with pytest.warns(UserWarning, match=f"{words}.*count as impossible"):
            remote = make(lacking.url, folder)
        view = remote.score(CLIPS, LANGUAGES, transcripts())
    assert bool(view.logprobs_at(local(teacher()).topk(13)[0][:, 12:]).isneginf().any())
    refused(folder, rf"127\.0\.0\.1.*{words}.*exact_ids=on needs it", served=lacking, exact_ids="on")


def test_too_large_a_top_k_is_refused_at_the_start_in_the_servers_words(folder):
    refused(folder, "status 400: Requested prompt logprobs of 21, which is greater than max allowed", top_k=21)


def test_a_loss_over_all_tokens_is_refused(folder):
    with connected(folder, top_k=2) as (remote, _):
        view = remote.score(CLIPS, LANGUAGES, transcripts())
        with pytest.raises(UserError, match="more tokens a position .*top-k support, or a local teacher"):
            view.logprobs_at(torch.arange(view.vocab_size).expand(len(view.topk(1)[0]), -1))


def test_a_server_without_the_endpoint_is_named(folder):
    served = VllmLike(teacher())
    served.failures[RENDER] = [(404, '{"detail": "Not Found"}')] * 9
    refused(folder, rf"{RENDER}: refused with status 404: Not Found; a vLLM that has", served=served)


def test_a_server_without_tokenize_is_believed(folder):
    served = VllmLike(teacher())
    served.failures["/tokenize"] = [(404, "")]
    with connected(folder, served=served) as (remote, _):
        assert len(remote.score(CLIPS, LANGUAGES, transcripts()).topk(1)[0]) == sum(map(len, transcripts()))


# Servers that are down, slow or busy


def score_one(remote):
    return remote.score(CLIPS[:1], LANGUAGES[:1], transcripts()[:1]).topk(3)[1]


def test_a_busy_server_is_asked_again_after_growing_waits(folder, monkeypatch):
    with connected(folder, retries=3, wait=0.5) as (remote, server):
        expected, waits, before = score_one(remote), [], server.requests[GENERATE]
        monkeypatch.setattr(client, "time", SimpleNamespace(sleep=waits.append, monotonic=lambda: 0.0))
        server.failures[GENERATE] = [(503, "loading"), (500, "oops"), (429, "later")]
        assert torch.equal(score_one(remote), expected)
        assert waits == [0.5, 1.0, 2.0] and server.requests[GENERATE] - before == 4


def test_a_server_that_stays_busy_is_given_up(folder):
    with connected(folder, retries=2) as (remote, server):
        server.failures[GENERATE] = [(500, '{"error": {"message": "CUDA out of memory"}}')] * 9
        with pytest.raises(UserError) as failure:
            score_one(remote)
    sentence = rf"{server.url}{GENERATE}: no good answer in 3 tries and \d+\.\d s: status 500: CUDA out of memory; see"
    assert re.match(sentence, str(failure.value))


def test_a_refusal_is_not_tried_again(folder):
    with connected(folder) as (remote, server):
        before = server.requests[GENERATE]
        server.failures[GENERATE] = [(400, '{"error": {"message": "The prompt is too long"}}')]
        with pytest.raises(
            UserError, match=f"{server.url}{GENERATE}: refused with status 400: The prompt is too long$"
        ):
            score_one(remote)
        assert server.requests[GENERATE] - before == 1


def test_a_slow_server_is_given_up(folder):
    with connected(folder, retries=1) as (remote, server):
        remote.scorer.server.timeout = 0.05
        server.delays[GENERATE] = lambda number: 0.3
        with pytest.raises(
            UserError, match=r"in 2 tries .*: nothing came within 0\.05 s \(teacher\.options\.timeout\)"
        ):
            score_one(remote)


def test_a_server_that_is_down_is_named(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with pytest.raises(
        UserError, match=rf"{address}/v1/models: no good answer in 3 tries .*refused.*teacher\.options\.url"
    ):
        make(address, folder)


def test_a_connection_that_breaks_off_is_tried_again(folder):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)

        def hang_up():
            for _ in range(3):
                listening.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(UserError, match="no good answer in 3 tries"):
            make(f"http://127.0.0.1:{listening.getsockname()[1]}", folder)
        thread.join(5)
    assert not thread.is_alive()


# Servers that answer something else


def test_another_model_is_refused(folder):
    refused(
        folder,
        r"/v1/models: serves other, not 'tiny': set teacher\.options\.model",
        served=VllmLike(teacher(), name="other"),
    )


def test_another_tokenizer_is_refused(folder):
    other = teacher(tokenizer=train_byte_bpe(TEXTS[:3], 300))
    refused(folder, rf"/tokenize: .*other tokens than {folder}.*another model's", served=VllmLike(other))


class Noisy(VllmLike):
    """No two runs of it give the same numbers."""

    def _logprobs(self, embeds):
        exact = super()._logprobs(embeds)
        return (exact + 0.01 * torch.randn(exact.shape)).log_softmax(-1)


class Deaf(VllmLike):
    """It takes features and does not look at them."""

    def _encode(self, audio):
        return torch.zeros_like(super()._encode(audio))


class NoisyDeaf(Noisy, Deaf):
    """Its answers differ, but not by what it hears."""


@pytest.mark.parametrize("kind", [Deaf, NoisyDeaf])
def test_a_deaf_server_is_refused(folder, kind):
    refused(folder, "scores a tone and silence alike", served=kind(teacher()))


def test_a_noisy_server_that_hears_is_not_refused(folder):
    with connected(folder, served=Noisy(teacher()), exact_ids="on") as (remote, _):
        found = remote.score(CLIPS, LANGUAGES, transcripts()).topk(1)[1]
    torch.testing.assert_close(found, local(teacher()).topk(1)[1], rtol=0, atol=0.1)


def test_folders_that_hold_no_such_tokenizer_are_named(folder, tmp_path):
    with VllmLike(teacher()).running() as server:
        with pytest.raises(UserError, match=rf"{tmp_path}: cannot be read as a tokenizer"):
            make(server.url, str(tmp_path))
        student_tokenizer().save_pretrained(tmp_path)
        with pytest.raises(UserError, match=rf"{tmp_path}: the tokenizer lacks .*<\|audio_pad\|>"):
            make(server.url, str(tmp_path))


def rows_changed(change):
    """Return a twist of the last row of scores."""

    def twist(answer):
        answer["prompt_logprobs"][-1] = change(answer["prompt_logprobs"][-1])
        return answer

    return twist


def first_value(value):
    return rows_changed(lambda row: {key: {"logprob": value} for key in list(row)[:1]} | dict(list(row.items())[1:]))


def shifted(answer):
    answer["prompt_logprobs"].append(answer["prompt_logprobs"].pop(1))
    return answer


@pytest.mark.parametrize(
    ("twist", "sentence"),
    [
        (lambda a: "<html>nginx</html>", "no JSON object but '<html>nginx</html>'"),
        (lambda a: "[1]", "no JSON object"),
        (lambda a: '{"prompt_logprobs": [', "no JSON object"),
        (lambda a: a | {"prompt_logprobs": None}, "has no prompt_logprobs"),
        (lambda a: a | {"prompt_logprobs": a["prompt_logprobs"][1:]}, r"tokens were sent, \d+ are scored"),
        (shifted, r"token \d+ was sent, and is not among those scored"),
        (rows_changed(lambda row: dict(list(row.items())[:3])), "12 tokens a position were asked for, 3 are answered"),
        (rows_changed(lambda row: None), "prompt_logprobs holds None"),
        (rows_changed(lambda row: row | {"x": {"logprob": -1.0}}), "prompt_logprobs holds"),
        (rows_changed(lambda row: dict.fromkeys(row, 1.0)), "prompt_logprobs holds"),
        (first_value(float("nan")), "no log-probabilities"),
        (first_value(3.5), "no log-probabilities.*--logprobs-mode"),
        (rows_changed(lambda row: {key: {"logprob": -0.5} for key in row}), "no log-probabilities"),
    ],
)
def test_an_answer_that_cannot_be_scores_is_refused(folder, twist, sentence):
    with connected(folder) as (remote, server):
        server.twists[GENERATE] = twist
        before = server.requests[GENERATE]
        with pytest.raises(UserError, match=f"{re.escape(server.url + GENERATE)}: .*{sentence}"):
            score_one(remote)
        assert server.requests[GENERATE] - before == 1


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "has no prompt_token_id_logprobs"),
        ("bm90IG5weQ==", "cannot be read"),
        ("?", "cannot be read"),
        (numpy.zeros((2, 2), numpy.float32), r"is float32 \[2, 2\], not float32"),
        (numpy.full((5, 1), 0.5, numpy.float32), "up to 0.5"),
        (numpy.full((5, 1), numpy.nan, numpy.float32), "no log-probabilities"),
        (numpy.zeros((5, 1), numpy.int64), "is int64"),
    ],
)
def test_exact_numbers_that_cannot_be_are_refused(folder, value, sentence):
    if isinstance(value, numpy.ndarray):
        file = io.BytesIO()
        numpy.save(file, value)
        value = base64.b64encode(file.getvalue()).decode()
    with connected(folder) as (remote, server):
        view = remote.score(CLIPS[:1], LANGUAGES[:1], [[4, 5, 6, 7, 8]])
        server.twists[GENERATE] = lambda a: a | {"prompt_token_id_logprobs": value}
        worst = local(teacher(), CLIPS[:1], LANGUAGES[:1], [[4, 5, 6, 7, 8]]).logits.argmin(-1)[:, None]
        with pytest.raises(UserError, match=f"{re.escape(server.url + GENERATE)}: .*{sentence}"):
            view.logprobs_at(worst)


def test_exact_numbers_of_another_model_are_refused_at_the_start(folder):
    served = VllmLike(teacher())
    served._exact = lambda logprobs, start, asked: VllmLike._exact(served, logprobs - 0.2, start, asked)
    refused(folder, "gives other numbers for ids that are named", served=served)


@pytest.mark.parametrize(
    ("twist", "sentence"),
    [
        (lambda a: a | {"features": None}, "does not hold one clip's features"),
        (lambda a: a["features"].update(kwargs_data=None) or a, "--mm-processor-cache-gb 0"),
        (lambda a: a["features"].update(kwargs_data={"audio": [None]}) or a, "--mm-processor-cache-gb 0"),
        (lambda a: a["features"]["mm_placeholders"]["audio"][0].update(offset=2) or a, "read other tokens"),
    ],
)
def test_features_that_cannot_be_used_are_refused(folder, twist, sentence):
    with connected(folder) as (remote, server):
        server.twists[RENDER] = twist
        with pytest.raises(UserError, match=f"{re.escape(server.url + RENDER)}: .*{sentence}"):
            score_one(remote)


def test_a_transcript_that_is_none_is_refused(folder):
    with connected(folder) as (remote, server):
        server.twists[GENERATE] = lambda a: a | {"choices": []}
        with pytest.raises(UserError, match="holds no generated tokens"):
            remote.transcribe(CLIPS[:1], LANGUAGES[:1])


def test_what_the_server_writes_for_minus_infinity_is_that(folder):
    with connected(folder, exact_ids="off") as (remote, server):
        worst = local(teacher(), CLIPS[:1], LANGUAGES[:1], [[5]]).topk(12)[0][:, 11:]
        server.twists[GENERATE] = rows_changed(lambda row: row | {str(int(worst)): {"logprob": -9999.0}})
        view = remote.score(CLIPS[:1], LANGUAGES[:1], [[5]])
    assert float(view.logprobs_at(worst)) == -math.inf and float(view.topk(view.vocab_size)[1][0, -1]) == -math.inf


def test_a_model_wider_than_its_tokenizer_keeps_all_ids(folder):
    wide = len(teacher_tokenizer()) + 7
    with connected(folder, exact_ids="off") as (remote, server):
        server.twists[GENERATE] = rows_changed(lambda row: row | {str(wide): {"logprob": -30.0}})
        view = remote.score(CLIPS[:1], LANGUAGES[:1], [[5]])
    assert view.vocab_size == wide + 1 and float(view.logprobs_at(torch.tensor([[wide]]))) == -30.0


# Several at a time


def test_clips_are_scored_together_and_stay_in_order(folder):
    together = threading.Barrier(3)
    with connected(folder, concurrency=3) as (remote, server):
        expected = local(teacher()).topk(4)

        def wait(number):
            together.wait(10)  # breaks unless three requests are under way
            return 0.05 * (number % 3)

        server.delays[RENDER] = wait
        ids, values = remote.score(CLIPS, LANGUAGES, transcripts()).topk(4)
    assert torch.equal(ids, expected[0]) and not together.broken
    torch.testing.assert_close(values, expected[1], rtol=0, atol=1e-5)


def test_one_at_a_time_is_one_at_a_time(folder):
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


def test_a_key_is_sent_and_never_shown(folder, monkeypatch):
    monkeypatch.setenv("TINY_KEY", "open-sesame")
    with VllmLike(teacher(), key="open-sesame").running() as server:
        make(server.url, folder, api_key_env="TINY_KEY")
        with pytest.raises(UserError, match="refused with status 401: Unauthorized$"):
            make(server.url, folder)
        monkeypatch.setenv("TINY_KEY", "wrong-secret")
        with pytest.raises(UserError) as failure:
            make(server.url, folder, api_key_env="TINY_KEY")
    assert "wrong-secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
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
def test_options_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        registry.check_plugin("teacher", "qwen3_asr_http", {"url": "http://localhost:1"} | options)


def test_naming_it_imports_neither_torch_nor_a_client():
    code = (
        "import sys, arkasr.plugins; arkasr.plugins.check('teacher', 'qwen3_asr_http', {'url': 'http://x'});"
        "print([name for name in ('torch', 'transformers', 'urllib.request', 'soundfile') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
