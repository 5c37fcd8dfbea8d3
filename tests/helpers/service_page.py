"""The page of the service, as tests drive it: its flags, a result, what it shows, and what a reader does."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

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


def delta(text, **fields):
    return {"type": "transcript.text.delta", "delta": text, **fields}


def write_clip(path: Path, seconds: float = SECONDS) -> Path:
    times = np.arange(int(16000 * seconds)) / 16000
    soundfile.write(path, (0.2 * np.sin(2 * np.pi * 330 * times)).astype(np.float32), 16000)
    return path


def show(chromium, url: str, width: int = WIDE, dark: bool = False) -> None:
    chromium.open(url, width, dark)
    chromium.wait_for("document.body?.dataset.ready !== undefined")  # no body: the page has just begun


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
        """Wait until no card is at work, and each shows its player or cannot play. Then nothing moves any more."""
        self.chromium.wait_for("!document.querySelector('.work:not([hidden])')")
        settled = "!each.closest('.player').hidden || each.error"
        self.chromium.wait_for(f"[...document.querySelectorAll('audio')].every(each => {settled})")

    @property
    def names(self) -> list[str]:
        return self.chromium.evaluate("[...document.querySelectorAll('.card h2')].map(node => node.textContent)")

    @property
    def lit(self) -> str:
        return self.chromium.evaluate("[...document.querySelectorAll('.lit')].map(node => node.textContent).join('|')")

    @property
    def time(self) -> float:
        return self.chromium.evaluate("document.querySelector('audio').currentTime")
