"""The field for the language on the page, in headless Chromium: typing, keys, the mouse, and what is then sent."""

from __future__ import annotations

import browser
import pytest

pytest.importorskip("uvicorn")
from scripted_service import Answer, scripted_service
from service_page import DONE_WORDS, PHONE, Page, show

from arkasr.languages import LANGUAGES
from arkasr.serving.page.routes import PageSettings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.find() is None, reason=f"needs one of the programs {', '.join(browser.NAMES)}"),
]
VALUE = "document.querySelector('#language').value"
SHOWN = (
    "document.querySelector('#language-list').hidden ? [] : "
    "[...document.querySelectorAll('#language-list [role=option]')].map(node => node.firstChild.textContent)"
)
ACTIVE = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))?.firstChild.textContent"
NOTE = "document.querySelector('#language-note').textContent"


def type_in(chromium, text: str) -> None:
    """Type over what the field holds."""
    chromium.evaluate("document.querySelector('#language').blur()")
    chromium.evaluate("document.querySelector('#language').focus()")
    chromium.call("Input.insertText", text=text)


def test_field_offers_all_languages_and_begins_with_that_of_the_service(page, chromium):
    assert chromium.evaluate(VALUE) == "English" and chromium.evaluate(SHOWN) == []
    chromium.click("#language")
    assert chromium.evaluate(SHOWN) == list(LANGUAGES) and chromium.evaluate(ACTIVE) == "English"
    top = "document.querySelector('#language-en').getBoundingClientRect().top"
    box = "document.querySelector('#language-list').getBoundingClientRect()"
    assert chromium.evaluate(f"{box}.top <= {top} && {top} < {box}.bottom")  # the list has scrolled to it
    chromium.click("h1")  # beside the list, which covers the buttons
    assert chromium.evaluate(SHOWN) == [] and chromium.evaluate(VALUE) == "English"


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("ger", "German"),
        ("DE", "German"),  # a code, before Danish, whose name has these letters too
        ("deutsch", "German"),  # what its speakers call it
        ("francais", "French"),
        ("中文", "Chinese"),
        ("creole", "Haitian Creole"),
        ("anis", "Danish"),
    ],
)
def test_field_is_searched_by_name_and_code(page, chromium, typed, first):
    type_in(chromium, typed)
    shown = chromium.evaluate(SHOWN)
    assert shown[0] == first == chromium.evaluate(ACTIVE) and len(shown) < len(LANGUAGES) / 2
    chromium.press("Enter")
    assert chromium.evaluate(VALUE) == first and chromium.evaluate(SHOWN) == []


def test_field_is_used_by_keyboard(page, scripted, chromium, clip):
    chromium.press("Tab")
    chromium.press("Tab")
    assert chromium.evaluate("document.activeElement.id") == "language" and chromium.evaluate(SHOWN) == []
    chromium.press("ArrowDown")
    chromium.press("ArrowDown")
    chromium.press("ArrowDown")
    chromium.press("ArrowUp")
    assert chromium.evaluate(ACTIVE) == "Estonian"
    chromium.press("Escape")
    assert chromium.evaluate(VALUE) == "English" and chromium.evaluate(SHOWN) == []
    type_in(chromium, "gre")
    chromium.press("Tab")  # takes what is marked
    assert chromium.evaluate(VALUE) == "Greek" and chromium.evaluate("document.activeElement.id") == "choose"
    page.add(clip)
    page.finish()
    assert scripted.forms[0]["language"] == "el" and "Greek" in page.text(".facts")


def test_field_keeps_its_language_if_none_matches(page, chromium):
    type_in(chromium, "klingon")
    assert chromium.evaluate(SHOWN) == [] and "English stays chosen" in chromium.evaluate(NOTE)
    chromium.press("Enter")
    chromium.press("Tab")
    assert chromium.evaluate(VALUE) == "English" and chromium.evaluate(NOTE) == ""


def test_field_is_used_by_mouse(page, scripted, chromium, clip):
    chromium.click("#language")
    chromium.click("#language-fr")
    assert chromium.evaluate(VALUE) == "French" and chromium.evaluate(SHOWN) == []
    assert chromium.evaluate("document.activeElement.id") == "language"
    page.add(clip)
    page.finish()
    assert scripted.forms[0]["language"] == "fr"


def test_a_file_that_is_dropped_while_a_language_is_typed_gets_this_language(page, scripted, chromium, clip):
    type_in(chromium, "jap")
    chromium.drop_files("h1", [clip])
    chromium.wait_for("document.querySelectorAll('.card').length === 1")
    page.finish()
    assert scripted.forms[0]["language"] == "ja" and chromium.evaluate(VALUE) == "Japanese"


@pytest.fixture(scope="module")
def bilingual():
    with scripted_service(PageSettings("tiny", "German", trained=("Chinese", "German"))) as running:
        running.script(Answer([DONE_WORDS]))
        yield running


@pytest.mark.parametrize("width", [PHONE, 1000])
def test_field_offers_first_what_the_model_was_trained_on(bilingual, chromium, width):
    show(chromium, bilingual.url, width)
    assert chromium.evaluate(VALUE) == "German"
    chromium.click("#language")
    others = [name for name in LANGUAGES if name not in ("Chinese", "German")]
    assert chromium.evaluate(SHOWN) == ["Chinese", "German", *others]
    groups = chromium.evaluate("[...document.querySelectorAll('#language-list p')].map(node => node.textContent)")
    assert groups == ["Languages of this model", "Other languages"]
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    box = "document.querySelector('#language-list').getBoundingClientRect()"
    assert chromium.evaluate(f"{box}.left >= 0 && {box}.right <= {width}")


def test_field_of_a_model_with_one_language_cannot_be_changed(chromium):
    with scripted_service(PageSettings("tiny", languages=("English",))) as running:
        show(chromium, running.url)
        assert chromium.evaluate(VALUE) == "English"
        assert chromium.evaluate("document.querySelector('#language').disabled")
        assert Page(chromium).names == []
