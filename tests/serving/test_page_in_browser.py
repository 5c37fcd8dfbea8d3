"""The page of the service in headless Chromium: files, recordings, results, errors, keyboard, widths and colours.

Most tests script the answers of the service, so that every status and every moment of an upload occurs. The last ones
use the service itself.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from pathlib import Path

import browser
import numpy as np
import pytest
import soundfile
from browser import PALE_TEXTS

pytest.importorskip("uvicorn")
from scripted_service import Answer, scripted_service
from served import BOUNDARY, served
from tiny import ctc_tokens, eager_to_stop, student

from arkasr.serving.page.routes import PageSettings
from arkasr.transcription.recognizer import Recognizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.find() is None, reason=f"needs one of the programs {', '.join(browser.NAMES)}"),
]
FLAGS = (
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",  # and is allowed
    "--host-resolver-rules=MAP elsewhere.test 127.0.0.1",  # an address that browsers do not trust over http
)
WIDE, PHONE = 1000, 320
SECONDS = 3.0
TEXT = "the cat, sat on it."
WORDS = [{"word": word, "start": 0.5 * i, "end": 0.5 * i + 0.4} for i, word in enumerate(TEXT.split())]
SEGMENTS = [{"start": 0.0, "end": 0.9, "text": "the cat,"}, {"start": 1.0, "end": 2.4, "text": "sat on it."}]
SRT = "1\n00:00:00,000 --> 00:00:02,400\nthe cat, sat on it.\n\n"
DONE = {"type": "transcript.text.done", "text": TEXT, "duration": SECONDS, "segments": SEGMENTS, "srt": SRT}
DONE_WORDS = DONE | {"words": WORDS}
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
OVERFLOWING = """
[...document.querySelectorAll("body *")].filter(node => !node.closest(".unseen, .skip, template"))
  .filter(node => node.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(node => `${node.tagName}.${node.className}`)
"""


def delta(text, **fields):
    return {"type": "transcript.text.delta", "delta": text, **fields}


@pytest.fixture(scope="module")
def service():
    with scripted_service(PageSettings("tiny", word_times=True, max_bytes=10**6, max_seconds=600.0)) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp("chromium"), *FLAGS) as opened:
        yield opened


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "a clip, 你好.wav")


@pytest.fixture
def page(service, chromium):
    """The page with no files, in a new session, and answers that are a result with words."""
    service.script(Answer([delta("the cat"), DONE_WORDS]))
    show(chromium, service.url)
    chromium.evaluate("sessionStorage.clear()")
    return Page(chromium)


def write_clip(path: Path, seconds: float = SECONDS) -> Path:
    times = np.arange(int(16000 * seconds)) / 16000
    soundfile.write(path, (0.2 * np.sin(2 * np.pi * 330 * times)).astype(np.float32), 16000)
    return path


def show(chromium, url: str, width: int = WIDE, dark: bool = False) -> None:
    chromium.open(url, width, dark)
    chromium.wait_for("document.body.dataset.ready !== undefined")


@contextmanager
def network(chromium, **conditions):
    """Restrict the network of the page until the block ends."""
    full = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    chromium.call("Network.emulateNetworkConditions", **full | conditions)
    try:
        yield
    finally:
        chromium.call("Network.emulateNetworkConditions", **full)


def _shown(selector: str, card: int) -> str:
    """Return a script whose value is the text of a part of a card, or an empty string while it is not shown."""
    return (
        f"(node => node?.checkVisibility() ? node.innerText : '')"
        f"(document.querySelectorAll('.card')[{card}]?.querySelector({selector!r}))"
    )


class Page:
    """What tests read of the open page, and do with it."""

    def __init__(self, chromium):
        self.chromium = chromium

    def add(self, *paths: Path) -> None:
        """Choose files, and wait for their cards."""
        count = len(self.names) + len(paths)
        self.chromium.choose_files("#files", paths)
        self.chromium.wait_for(f"document.querySelectorAll('.card').length === {count}")

    def text(self, selector: str, card: int = 0) -> str:
        """Return the text of a part of a card, or an empty string while it is not shown."""
        return self.chromium.evaluate(_shown(selector, card))

    def wait(self, selector: str, expected: str, card: int = 0) -> None:
        """Wait until a part of a card shows a text."""
        self.chromium.wait_for(f"{_shown(selector, card)}.includes({expected!r})")

    def finish(self) -> None:
        """Wait until no card is at work, and the audio of all can be played or is known not to be playable."""
        self.chromium.wait_for("!document.querySelector('.work:not([hidden])')")
        self.chromium.wait_for("[...document.querySelectorAll('audio')].every(each => each.readyState || each.error)")

    @property
    def names(self) -> list[str]:
        return self.chromium.evaluate("[...document.querySelectorAll('.card h2')].map(node => node.textContent)")

    @property
    def lit(self) -> str:
        return self.chromium.evaluate("[...document.querySelectorAll('.lit')].map(node => node.textContent).join('|')")

    @property
    def time(self) -> float:
        return self.chromium.evaluate("document.querySelector('audio').currentTime")


def test_page_shows_text_as_it_comes_and_then_the_result(page, service, clip, chromium):
    go = threading.Event()
    service.script(Answer([delta("the"), delta(" cot", seconds=1.0), DONE_WORDS], go=go))
    page.add(clip)
    page.wait(".transcript", "the cot")
    page.wait(".state", "Recognised 0:01 of 0:03")
    assert page.text(".after") == ""
    go.set()
    page.finish()
    assert page.text(".transcript").split() == ["0:00", "the", "cat,", "0:01", "sat", "on", "it."]
    assert page.names == [clip.name] and "0:03" in page.text(".facts") and "English" in page.text(".facts")
    assert TEXT in chromium.evaluate("document.querySelector('#announce').textContent")
    assert service.forms == [
        {
            "model": "tiny",
            "language": "en",
            "response_format": "verbose_json",
            "timestamp_granularities[]": "word",
            "stream": "true",
            "file": clip.name,
        }
    ]
    assert chromium.complaints == []
    assert {url.partition(service.url)[0] for url in chromium.requests if not url.startswith("blob:")} == {""}


def test_page_takes_dropped_files_wherever_they_are_dropped(page, clip, tmp_path, chromium):
    other = write_clip(tmp_path / "other.wav")
    chromium.drop_files("h1", [clip, other])
    chromium.wait_for("document.querySelectorAll('.card').length === 2")
    page.finish()
    assert page.names == [clip.name, other.name] and not chromium.evaluate("document.body.matches('.dragging')")


def test_page_shows_the_text_of_a_file_that_the_browser_cannot_play(page, tmp_path):
    path = tmp_path / "old.amr"
    path.write_bytes(b"#!AMR\n" + bytes(500))
    page.add(path)
    page.finish()
    page.wait(".unplayable", "This browser cannot play the file")
    assert "sat" in page.text(".transcript") and page.text(".player") == ""


def test_page_does_not_move_if_the_reader_wants_no_motion(page, service, clip, chromium):
    go = threading.Event()
    service.script(Answer([delta("the"), DONE], go=go))
    page.add(clip)
    page.wait(".transcript", "the")
    assert chromium.evaluate("document.getAnimations().length") > 0
    chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    assert chromium.evaluate("document.getAnimations().length") == 0
    go.set()
    page.finish()


def test_page_lights_words_while_it_plays(page, clip, chromium):
    page.add(clip)
    page.finish()
    assert page.lit == ""
    chromium.evaluate("document.querySelector('audio').playbackRate = 0.25")
    chromium.click(".play")
    for word in ("the", "cat,"):
        chromium.wait_for(f"document.querySelector('.lit')?.textContent === {word!r}")
    assert chromium.evaluate("document.querySelector('.play').getAttribute('aria-label')") == "Pause"
    chromium.click(".play")
    chromium.click(".timed:nth-of-type(2)")  # of the first segment
    assert (page.time, page.lit) == (0.5, "cat,")


def test_page_lights_segments_where_words_have_no_times(page, service, clip, chromium):
    service.script(Answer([DONE]))
    page.add(clip)
    page.finish()
    chromium.click(".part:nth-child(2) .timed")
    assert (page.time, page.lit) == (1.0, "sat on it.")


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        ([("今", 0), ("天", 1), ("好", 2), ("走", 5)], ["今", "天", "好", "走"]),  # no spaces
        ([("今", 0), ("好", 2), ("走", 5)], ["今天好。", "走"]),  # its times cannot be trusted
        ([("今", 0), ("天", 1), ("好", 2), ("好", 3)], ["今天好。", "走"]),
    ],
    ids=["all", "one absent", "one too many"],
)
def test_page_uses_words_only_if_they_are_the_text(page, service, clip, chromium, words, pieces):
    timed = [{"word": word, "start": start / 2, "end": start / 2 + 0.4} for word, start in words]
    segments = [{"start": 0, "end": 2, "text": "今天好。"}, {"start": 2.2, "end": 3, "text": "走"}]
    service.script(Answer([DONE | {"text": "今天好。走", "segments": segments, "words": timed}]))
    page.add(clip)
    page.finish()
    assert page.text(".transcript").split() == ["0:00", "今天好。", "0:02", "走"]
    assert chromium.evaluate("[...document.querySelectorAll('.timed')].map(node => node.textContent)") == pieces


def test_page_treats_texts_as_text(page, service, tmp_path, chromium):
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    path = write_clip(tmp_path / "<img src=x onerror=alert(3)>.wav")
    first = Answer([DONE | {"text": hostile, "segments": [SEGMENTS[0] | {"text": hostile}], "notes": [hostile]}])
    service.script(first, Answer(status=400, message=hostile))
    page.add(path)
    page.finish()
    page.add(path)
    page.wait(".advice", hostile)
    assert page.text(".transcript", 1) == hostile == page.text(".notes", 1).strip()
    assert chromium.evaluate("document.querySelectorAll('body img, body script').length") == 0


@pytest.mark.parametrize(("status", "message", "expected"), ERRORS, ids=[str(row[0]) for row in ERRORS])
def test_page_says_what_is_wrong(page, service, clip, status, message, expected):
    # Five times busy are waited for with a clock of its own, which would take the time of the test.
    page.chromium.evaluate("setTimeout = (inner => (call, wait) => inner(call, wait / 1000))(setTimeout)")
    service.script(Answer(status=status, message=message))
    page.add(clip)
    page.wait(".problem", expected[0])
    assert all(part in page.text(".problem") for part in expected)
    assert page.names == [clip.name] and page.text(".again") == "Try again"
    assert len(service.forms) == (6 if status == 429 else 1)


def test_page_tries_again_while_the_service_is_busy(page, service, clip):
    service.script(Answer(status=503, headers={"Retry-After": "1"}), Answer([DONE]))
    page.add(clip)
    page.wait(".state", "The service is busy. Next try in")
    page.finish()
    assert "sat on it." in page.text(".transcript") and len(service.forms) == 2


def test_page_keeps_text_of_a_stream_that_breaks_off(page, service, clip):
    service.script(Answer([delta("the cat")]), Answer([delta("the"), {"error": {"message": "it burns"}}]))
    page.add(clip)
    page.wait(".problem", "broke off")
    assert page.text(".transcript") == "the cat" and "incomplete" in page.text(".problem")
    page.chromium.click(".again")
    page.wait(".problem", "it burns")
    assert page.text(".transcript") == "the"


def test_page_says_that_the_network_is_gone_and_tries_again_on_request(page, clip, chromium):
    with network(chromium, offline=True):
        page.add(clip)
        page.wait(".problem", "No connection to the service")
    chromium.click(".again")
    page.wait(".transcript", "sat")
    assert page.text(".problem") == ""


def test_page_shows_how_much_is_sent_and_stops_on_request(page, service, tmp_path, chromium):
    with network(chromium, uploadThroughput=100_000):
        page.add(write_clip(tmp_path / "long.wav", 30.0))
        chromium.wait_for("/Sending: [1-9]/.test(document.querySelector('.state').textContent)")
        assert 0 < chromium.evaluate("document.querySelector('progress').value") < 1
        chromium.click(".cancel")
        page.wait(".problem", "Cancelled.")
    assert service.forms == []


def test_page_refuses_files_before_it_sends_them(page, service, tmp_path):
    empty, large = tmp_path / "empty.wav", tmp_path / "large.wav"
    empty.write_bytes(b"")
    large.write_bytes(bytes(2 * 10**6))
    page.add(empty, large)
    page.wait(".problem", "The file is empty")
    page.wait(".problem", "The file is too large: 1.9 MiB", 1)
    assert "up to 977 KiB" in page.text(".problem", 1) and service.forms == []


def test_page_queues_files_and_cancels_them(page, service, tmp_path, chromium):
    go = threading.Event()
    service.script(Answer([DONE_WORDS], go=go))
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
    assert len(service.forms) == 4
    chromium.click(".remove")
    assert page.names == [path.name for path in paths[1:]]


def test_page_asks_for_a_key_only_if_the_service_does(page, service, clip, chromium):
    shown = "!document.querySelector('#key-form').hidden"
    assert not chromium.evaluate(shown)
    service.script(Answer([DONE]), key="sesame")
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
    show(chromium, service.url)
    page.add(clip)
    page.wait(".transcript", "sat")
    assert not chromium.evaluate(shown)


def test_page_downloads_and_copies(page, clip, chromium, tmp_path):
    chromium.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True)
    chromium.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.add(clip)
    page.finish()
    for kind in ("txt", "srt"):
        chromium.click(f"a.{kind}")
        chromium.wait_for_event("Browser.downloadProgress", state="completed")
    assert (tmp_path / f"{clip.stem}.txt").read_text() == f"{TEXT}\n"
    assert (tmp_path / f"{clip.stem}.srt").read_text() == SRT
    chromium.click(".copy")
    page.wait(".copy", "Copied")
    assert chromium.evaluate("navigator.clipboard.readText()") == TEXT


def test_page_records_from_the_microphone(page, service, chromium):
    chromium.click("#record")
    chromium.wait_for("document.querySelector('#recording-time').textContent === '0:01'")
    chromium.wait_for("Number(document.querySelector('#level').getAttribute('aria-valuenow')) > 20")
    assert chromium.evaluate("document.activeElement.id") == "stop"
    chromium.press("Enter")
    page.wait(".transcript", "sat")
    assert re.fullmatch(r"recording \d\d-\d\d-\d\d\.webm", service.forms[0]["file"])
    length = "document.querySelector('audio').duration"
    chromium.wait_for(f"Number.isFinite({length})")
    assert 0.5 < chromium.evaluate(length) < 30 and chromium.evaluate("document.activeElement.id") == "record"
    chromium.click("#record")
    chromium.wait_for("!document.querySelector('#recording').hidden")
    chromium.click("#discard")
    chromium.wait_for("document.querySelector('#recording').hidden")
    assert len(page.names) == 1


def test_page_says_why_it_cannot_record(service, chromium):
    show(chromium, service.url.replace("127.0.0.1", "elsewhere.test"))
    chromium.click("#record")
    chromium.wait_for("document.querySelector('#record-problem').checkVisibility()")
    problem = chromium.evaluate("document.querySelector('#record-problem').textContent")
    assert "only over https" in problem and "choose the file" in problem
    assert chromium.evaluate("document.querySelector('#recording').hidden")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_fits_a_phone_and_is_readable(service, chromium, tmp_path, dark):
    service.script(Answer([DONE_WORDS]), Answer(status=400, message="w" * 200), Answer([DONE]), key="sesame")
    show(chromium, service.url, PHONE, dark)
    chromium.evaluate("sessionStorage.setItem('arkasr-key', 'sesame')")
    show(chromium, service.url, PHONE, dark)
    page = Page(chromium)
    paths = [write_clip(tmp_path / f"{name}.wav") for name in ("first", "long_" * 30, "last")]
    for path in paths:
        page.add(path)
        page.finish()
    chromium.evaluate("document.querySelector('#key-form').hidden = false")
    chromium.click(".timed")
    chromium.wait_for("document.querySelector('.lit')")
    visible = chromium.evaluate("document.documentElement.clientWidth")
    assert chromium.evaluate("document.documentElement.scrollWidth") == visible <= PHONE
    assert chromium.evaluate(OVERFLOWING) == [] == chromium.evaluate(PALE_TEXTS)
    ground = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", ground))) < 60) is dark


def test_page_works_by_keyboard(page, clip, chromium):
    chromium.call("Page.setInterceptFileChooserDialog", enabled=True)
    for _ in range(3):
        chromium.press("Tab")
    assert chromium.evaluate("document.activeElement.id") == "choose"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert chromium.evaluate(outline) == "solid"
    chromium.press("Enter")
    chromium.wait_for_event("Page.fileChooserOpened")
    chromium.call("Page.setInterceptFileChooserDialog", enabled=False)
    page.add(clip)
    page.finish()
    reached = []
    for _ in range(8):
        chromium.press("Tab")
        reached.append(chromium.evaluate("document.activeElement.className || document.activeElement.id"))
        assert chromium.evaluate(outline) == "solid"
    assert reached == [
        "record", "plain remove", "play", "seek", "transcript", "copy", "button txt", "button srt",
    ]  # fmt: skip
    chromium.evaluate("document.querySelector('.transcript').focus()")
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "End", "ArrowLeft", "Home"):
        chromium.press(key)
        seen.append(page.lit)
    assert seen == ["the", "cat,", "sat", "it.", "on", "the"]
    for state in ("Pause", "Play"):
        chromium.press(" ")
        chromium.wait_for(f"document.querySelector('.play').getAttribute('aria-label') === {state!r}")


@pytest.fixture(scope="module")
def real_service():
    model = eager_to_stop(student(2))
    model.add_ctc_head(ctc_tokens())
    with served(Recognizer("tiny", model), "sesame", word_times=True, max_seconds=4.0) as running:
        yield running


def test_page_shows_and_downloads_what_the_service_returns(real_service, chromium, clip, tmp_path):
    chromium.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True)
    show(chromium, real_service.url)
    chromium.wait_for("!document.querySelector('#key-form').hidden")
    chromium.click("#key")
    chromium.call("Input.insertText", text="sesame")
    chromium.press("Enter")
    chromium.wait_for("document.querySelector('#key-form').hidden")
    page = Page(chromium)
    page.add(clip)
    page.finish()
    key = {"headers": {"Authorization": "Bearer sesame", "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}}
    _, verbose, _ = real_service.post({"response_format": "verbose_json"}, clip.read_bytes(), **key)
    _, srt, _ = real_service.post({"response_format": "srt"}, clip.read_bytes(), **key)
    assert len(verbose["text"].split()) > 1
    shown = chromium.evaluate("[...document.querySelectorAll('.transcript p')].map(node => node.textContent)")
    assert shown == [segment["text"] for segment in verbose["segments"]]
    chromium.click("a.srt")
    chromium.wait_for_event("Browser.downloadProgress", state="completed")
    assert (tmp_path / f"{clip.stem}.srt").read_text() == srt


def test_page_shows_the_errors_of_the_service(real_service, chromium, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("not a recording " * 9)
    show(chromium, real_service.url)
    chromium.evaluate("sessionStorage.setItem('arkasr-key', 'sesame')")
    show(chromium, real_service.url)
    page = Page(chromium)
    page.add(write_clip(tmp_path / "long.wav", 5.0), text)
    page.finish()
    assert "longer than 4 s" in page.text(".problem", 0) and "too long" in page.text(".what", 0)
    assert "text.wav" in page.text(".problem", 1) and "cannot be read as audio" in page.text(".problem", 1)
