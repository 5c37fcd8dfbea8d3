"""A browser and a service with scripted answers, for the tests of the page."""

from __future__ import annotations

from pathlib import Path

import browser
import pytest
from service_page import DONE_WORDS, FLAGS, Page, delta, show, write_clip


@pytest.fixture(scope="session")
def scripted():
    from scripted_service import scripted_service

    from arkasr.serving.page.routes import PageSettings

    with scripted_service(PageSettings("tiny", word_times=True, max_bytes=10**6, max_seconds=600.0)) as running:
        yield running


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp("chromium"), *FLAGS) as opened:
        yield opened


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "a clip, 你好.wav")


@pytest.fixture
def page(scripted, chromium):
    """The page with no files, in a new session, and answers that are a result with words."""
    from scripted_service import Answer

    scripted.script(Answer([delta("the cat"), DONE_WORDS]))
    show(chromium, scripted.url)
    chromium.evaluate("sessionStorage.clear()")
    return Page(chromium)
