"""report.html in headless Chromium, at two widths, in light and dark: what a reader and the network see of it."""

from __future__ import annotations

import re
from itertools import pairwise

import browser
import pytest
from browser import PALE_TEXTS
from reported import ENGLISH_SETS, MANDARIN_SETS, RUNS, write_experiment

from arkasr.reporting.score import score

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.find() is None, reason=f"needs one of the programs {', '.join(browser.NAMES)}"),
]
WIDTHS = (390, 1280)

OVERFLOWING = """
[...document.querySelectorAll("main *")].filter(node => !node.closest(".scroll, svg, .unseen"))
  .filter(node => node.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(node => `${node.tagName}.${node.className}`)
"""
NAMELESS = """
[...document.querySelectorAll("svg:not([aria-hidden]), audio, [role=region], nav, article")]
  .filter(node => !node.getAttribute("aria-label")).map(node => node.outerHTML.slice(0, 80))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    expdir, data = write_experiment(tmp_path_factory.mktemp("reported"))
    score(str(expdir), str(data), list(RUNS))
    return expdir / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def faults(chromium) -> set[str]:
    """Name what is wrong with the open page."""
    chromium.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    visible = chromium.evaluate("document.documentElement.clientWidth")
    found = {
        "scrolls": chromium.evaluate("document.documentElement.scrollWidth") > visible,
        "overflows": chromium.evaluate(OVERFLOWING),
        "pale": chromium.evaluate(PALE_TEXTS),
        "nameless": chromium.evaluate(NAMELESS),
        "complains": chromium.complaints,
        "requests": len({url for url in chromium.requests if not url.startswith("data:")}) > 1,
    }
    return {f"{name}: {value}" for name, value in found.items() if value}


def test_checks_find_each_fault(chromium, tmp_path):
    path = tmp_path / "faulty.html"
    path.write_text(
        "<body><main><p style='width: 999px; color: #999999'>pale</p></main><svg></svg>"
        "<script>console.log(1); fetch('http://127.0.0.1:9/').catch(() => 0)</script>"
    )
    chromium.open(path, WIDTHS[0])
    names = {fault.partition(":")[0] for fault in faults(chromium)}
    assert names == {"scrolls", "overflows", "pale", "nameless", "complains", "requests"}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_page_fits_and_is_readable_and_asks_for_nothing(page, chromium, width, dark):
    chromium.open(page, width, dark)
    assert faults(chromium) == set()
    ground = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", ground))) < 60) is dark


def test_page_has_landmarks_names_and_headings_in_order(page, chromium):
    chromium.open(page, WIDTHS[1])
    for name in ("header", "nav", "main", "footer"):
        assert chromium.evaluate(f"document.querySelectorAll('.page > {name}').length") == 1
    levels = chromium.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(node => +node.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1 and len(levels) > 20
    assert all(after <= before + 1 for before, after in pairwise(levels))
    anchors = chromium.evaluate("[...document.querySelectorAll('[id]')].map(node => node.id)")
    links = chromium.evaluate("[...document.querySelectorAll('a')].map(node => node.getAttribute('href'))")
    assert len(set(anchors)) == len(anchors) and {link.removeprefix("#") for link in links} <= set(anchors)
    assert chromium.evaluate("document.querySelectorAll('table:not(:has(th[scope=col]))').length") == 0


def test_keyboard_reaches_links_players_and_tables(page, chromium):
    chromium.open(page, WIDTHS[0])
    reached = set()
    for _ in range(60):
        chromium.press("Tab")
        reached.add(chromium.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert {"skip", "A", "scroll", "AUDIO", "SUMMARY"} <= reached


def test_hostile_texts_are_shown_and_run_nothing(page, chromium):
    chromium.open(page, WIDTHS[1])
    assert (
        chromium.evaluate("document.querySelectorAll('script, img, iframe, object, [onerror], [onmouseover]').length")
        == 0
    )
    names = chromium.evaluate("[...document.querySelectorAll('.card header code')].map(node => node.textContent)")
    assert any("onerror=alert(1)" in name and "{{ 7 * 7 }}" in name and "&lt;b&gt;" in name for name in names)


def test_audio_plays(page, chromium):
    chromium.open(page, WIDTHS[1])
    seconds = chromium.evaluate(
        "new Promise(done => { const audio = document.querySelector('audio'); audio.preload = 'metadata';"
        " audio.onloadedmetadata = () => done(audio.duration); audio.onerror = () => done(-1); audio.load(); })"
    )
    assert seconds == pytest.approx(1.0, abs=0.05)


def test_printed_page_shows_what_is_folded(page, chromium):
    chromium.open(page, WIDTHS[1])
    chromium.call("Emulation.setEmulatedMedia", media="print")
    hidden = (
        "[...document.querySelectorAll('details .card')].filter(node => !node.getBoundingClientRect().height).length"
    )
    shown = chromium.evaluate("document.querySelectorAll('details .card').length")
    assert shown > len(ENGLISH_SETS + MANDARIN_SETS) and chromium.evaluate(hidden) == 0
    assert chromium.evaluate("getComputedStyle(document.querySelector('audio')).display") == "none"
