"""The page of the service in headless Chromium: files, recordings, results, keyboard, widths and colours.

Most tests script the answers of the service, so that every moment of an upload occurs. The last ones use the service.
"""

from __future__ import annotations

import re
import threading

import browser
import pytest
from browser import PALE_TEXTS

pytest.importorskip("uvicorn")
from scripted_service import Answer
from served import BOUNDARY, served
from service_page import DONE, DONE_WORDS, PHONE, SRT, TEXT, Page, delta, show, write_clip
from tiny import ctc_tokens, eager_to_stop, student

from arkasr.transcription.recognizer import Recognizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.find() is None, reason=f"needs one of the programs {', '.join(browser.NAMES)}"),
]
OVERFLOWING = """
[...document.querySelectorAll("body *")].filter(node => !node.closest(".unseen, .skip, template"))
  .filter(node => node.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(node => `${node.tagName}.${node.className}`)
"""


def test_page_shows_text_as_it_comes_and_then_the_result(page, scripted, clip, chromium):
    go = threading.Event()
    scripted.script(Answer([delta("the"), delta(" cot", seconds=1.0), DONE_WORDS], go=go))
    page.add(clip)
    page.wait(".transcript", "the cot")
    page.wait(".state", "Recognised 0:01 of 0:03")
    assert page.text(".after") == ""
    go.set()
    page.finish()
    assert page.text(".transcript").split() == ["0:00", "the", "cat,", "0:01", "sat", "on", "it."]
    assert page.names == [clip.name] and "0:03" in page.text(".facts") and "English" in page.text(".facts")
    assert TEXT in chromium.evaluate("document.querySelector('#announce').textContent")
    assert scripted.forms == [
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
    assert {url.partition(scripted.url)[0] for url in chromium.requests if not url.startswith("blob:")} == {""}


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


def test_page_does_not_move_if_the_reader_wants_no_motion(page, scripted, clip, chromium):
    go = threading.Event()
    scripted.script(Answer([delta("the"), DONE], go=go))
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


def test_page_lights_segments_where_words_have_no_times(page, scripted, clip, chromium):
    scripted.script(Answer([DONE]))
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
def test_page_uses_words_only_if_they_are_the_text(page, scripted, clip, chromium, words, pieces):
    timed = [{"word": word, "start": start / 2, "end": start / 2 + 0.4} for word, start in words]
    segments = [{"start": 0, "end": 2, "text": "今天好。"}, {"start": 2.2, "end": 3, "text": "走"}]
    scripted.script(Answer([DONE | {"text": "今天好。走", "segments": segments, "words": timed}]))
    page.add(clip)
    page.finish()
    assert page.text(".transcript").split() == ["0:00", "今天好。", "0:02", "走"]
    assert chromium.evaluate("[...document.querySelectorAll('.timed')].map(node => node.textContent)") == pieces


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


def test_page_records_from_the_microphone(page, scripted, chromium):
    chromium.click("#record")
    chromium.wait_for("document.querySelector('#recording-time').textContent === '0:01'")
    chromium.wait_for("Number(document.querySelector('#level').getAttribute('aria-valuenow')) > 20")
    assert chromium.evaluate("document.activeElement.id") == "stop"
    chromium.press("Enter")
    page.wait(".transcript", "sat")
    assert re.fullmatch(r"recording \d\d-\d\d-\d\d\.webm", scripted.forms[0]["file"])
    length = "document.querySelector('audio').duration"
    chromium.wait_for(f"Number.isFinite({length})")
    assert 0.5 < chromium.evaluate(length) < 30 and chromium.evaluate("document.activeElement.id") == "record"
    chromium.click("#record")
    chromium.wait_for("!document.querySelector('#recording').hidden")
    chromium.click("#discard")
    chromium.wait_for("document.querySelector('#recording').hidden")
    assert len(page.names) == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_fits_a_phone_and_is_readable(scripted, chromium, tmp_path, dark):
    scripted.script(Answer([DONE_WORDS]), Answer(status=400, message="w" * 200), Answer([DONE]), key="sesame")
    show(chromium, scripted.url, PHONE, dark)
    chromium.evaluate("sessionStorage.setItem('arkasr-key', 'sesame')")
    show(chromium, scripted.url, PHONE, dark)
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
