"""What the page of the service says in headless Chromium when something is wrong, and what it keeps."""

from __future__ import annotations

import threading

import browser
import pytest

pytest.importorskip("uvicorn")
from scripted_service import Answer
from service_page import DONE, DONE_WORDS, SEGMENTS, delta, network, show, write_clip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.find() is None, reason=f"needs one of the programs {', '.join(browser.NAMES)}"),
]
ERRORS = [
    (400, "a.wav: is not audio; send a file with audio", ["cannot use this file", "a.wav: is not audio"]),
    (413, "the audio is longer than 60 s; cut it", ["too large or too long", "longer than 60 s; cut it"]),
    (415, "", ["cannot read this type of file", "Convert it to WAV"]),
    (429, "too many", ["is busy", "try again"]),
    (500, "its log has the reason", ["failed on this file", "its log has the reason"]),
    (503, "the service is ending", ["no room", "The service says: the service is ending"]),
    (504, "", ["longer than the service allows", "cut the file"]),
    (418, "", ["cannot use this file"]),
]


def test_page_treats_texts_as_text(page, scripted, tmp_path, chromium):
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    path = write_clip(tmp_path / "<img src=x onerror=alert(3)>.wav")
    first = Answer([DONE | {"text": hostile, "segments": [SEGMENTS[0] | {"text": hostile}], "notes": [hostile]}])
    scripted.script(first, Answer(status=400, message=hostile))
    page.add(path)
    page.finish()
    page.add(path)
    page.wait(".advice", hostile)
    assert page.text(".transcript", 1) == hostile == page.text(".notes", 1).strip()
    assert chromium.evaluate("document.querySelectorAll('body img, body script').length") == 0


def test_page_says_what_is_wrong(page, scripted, clip):
    # Five times busy are waited for with a clock of its own, which would take the time of the test.
    page.chromium.evaluate("setTimeout = (inner => (call, wait) => inner(call, wait / 1000))(setTimeout)")
    for status, message, expected in ERRORS:
        scripted.script(Answer(status=status, message=message))
        page.add(clip)  # its card is the first
        page.wait(".problem", expected[0])
        assert all(part in page.text(".problem") for part in expected), status
        assert page.text(".again") == "Try again"
        assert len(scripted.forms) == (6 if status == 429 else 1), status
    assert page.names == [clip.name] * len(ERRORS)


def test_page_tries_again_while_the_service_is_busy(page, scripted, clip):
    scripted.script(Answer(status=503, headers={"Retry-After": "1"}), Answer([DONE]))
    page.add(clip)
    page.wait(".state", "The service is busy. Next try in")
    page.finish()
    assert "sat on it." in page.text(".transcript") and len(scripted.forms) == 2


def test_page_keeps_text_of_a_stream_that_breaks_off(page, scripted, clip):
    scripted.script(Answer([delta("the cat")]), Answer([delta("the"), {"error": {"message": "it burns"}}]))
    page.add(clip)
    page.wait(".problem", "broke off")
    assert page.text(".transcript") == "the cat" and "incomplete" in page.text(".problem")
    page.finish()
    page.chromium.click(".again")
    page.wait(".problem", "it burns")
    assert page.text(".transcript") == "the"


def test_page_says_that_the_network_is_gone_and_tries_again_on_request(page, clip, chromium):
    with network(chromium, offline=True):
        page.add(clip)
        page.wait(".problem", "No connection to the service")
    page.finish()
    chromium.click(".again")
    page.wait(".transcript", "sat")
    assert page.text(".problem") == ""


def test_page_says_that_a_stream_without_text_broke_off(page, scripted, clip, chromium):
    go = threading.Event()
    scripted.script(Answer([{}], headers={"Content-Length": "999"}, go=go))  # the page ignores this event
    page.add(clip)
    chromium.wait_for_event("Network.responseReceived", type="XHR")
    go.set()
    page.wait(".problem", "The connection to the service broke off")


def test_page_says_that_a_file_changed_while_it_was_sent(page, scripted, tmp_path, chromium):
    path = write_clip(tmp_path / "long.wav", 30.0)
    with network(chromium, uploadThroughput=50_000):
        page.add(path)
        chromium.wait_for("/Sending: [1-9]/.test(document.querySelector('.state').textContent)")
        path.write_bytes(b"another file")
        with network(chromium, offline=True):
            page.wait(".problem", "cannot read this file")
    assert "changed" in page.text(".problem")


def test_page_shows_how_much_is_sent_and_stops_on_request(page, scripted, tmp_path, chromium):
    with network(chromium, uploadThroughput=100_000):
        page.add(write_clip(tmp_path / "long.wav", 30.0))
        chromium.wait_for("/Sending: [1-9]/.test(document.querySelector('.state').textContent)")
        assert 0 < chromium.evaluate("document.querySelector('progress').value") < 1
        chromium.click(".cancel")
        page.wait(".problem", "Cancelled.")
    assert page.text(".transcript") == ""


def test_page_refuses_files_before_it_sends_them(page, scripted, tmp_path):
    empty, large = tmp_path / "empty.wav", tmp_path / "large.wav"
    empty.write_bytes(b"")
    large.write_bytes(bytes(2 * 10**6))
    page.add(empty, large)
    page.wait(".problem", "The file is empty")
    page.wait(".problem", "The file is too large: 1.9 MiB", 1)
    assert "up to 977 KiB" in page.text(".problem", 1) and scripted.forms == []


def test_page_queues_files_and_cancels_them(page, scripted, tmp_path, chromium):
    go = threading.Event()
    scripted.script(Answer([DONE_WORDS], go=go))
    paths = [write_clip(tmp_path / f"{number}.wav", 0.1) for number in range(6)]
    page.add(*paths)
    for card in range(3):
        page.wait(".state", "Recognising", card)
    assert [page.text(".state", card) for card in (3, 4, 5)] == ["Waiting for its turn"] * 3
    chromium.evaluate("[0, 3].forEach(card => document.querySelectorAll('.cancel')[card].click())")
    page.wait(".state", "Recognising", 4)  # in the place of the first
    paths[5].unlink()
    go.set()
    page.finish()
    assert page.names == [path.name for path in paths]
    assert [page.text(".what", card) for card in range(5)] == ["Cancelled.", "", "", "Cancelled.", ""]
    assert "cannot read this file" in page.text(".what", 5)
    assert len(scripted.forms) == 4
    chromium.click(".remove")
    assert page.names == [path.name for path in paths[1:]]


def test_page_asks_for_a_key_only_if_the_service_does(page, scripted, clip, chromium):
    shown = "!document.querySelector('#key-form').hidden"
    assert not chromium.evaluate(shown)
    scripted.script(Answer([DONE]), key="sesame")
    page.add(clip)
    page.wait(".problem", "asks for an API key")
    assert chromium.evaluate(f"{shown} && document.activeElement.id") == "key"
    for key, note in (("wrong", "does not accept this key"), ("schlüssel", "does not accept this key"), ("sesame", "")):
        chromium.evaluate("document.querySelector('#key').value = ''")
        chromium.call("Input.insertText", text=key)
        chromium.press("Enter")
        if note:
            chromium.wait_for(f"document.querySelector('#key-note').textContent.includes({note!r})")
    page.wait(".transcript", "sat")
    assert not chromium.evaluate(shown) and chromium.evaluate("localStorage.length") == 0
    show(chromium, scripted.url)
    page.add(clip)
    page.wait(".transcript", "sat")
    assert not chromium.evaluate(shown)


def test_page_says_why_it_cannot_record(scripted, chromium):
    show(chromium, scripted.url.replace("127.0.0.1", "elsewhere.test"))
    chromium.click("#record")
    chromium.wait_for("document.querySelector('#record-problem').checkVisibility()")
    problem = chromium.evaluate("document.querySelector('#record-problem').textContent")
    assert "only over https" in problem and "choose the file" in problem
    assert chromium.evaluate("document.querySelector('#recording').hidden")
