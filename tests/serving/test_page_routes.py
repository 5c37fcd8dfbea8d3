"""What the page's routes send: files that need nothing else, headers, and the facts of the service."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("starlette")
from starlette.applications import Starlette
from starlette.testclient import TestClient

import arkasr.serving.page
from arkasr.errors import UserError
from arkasr.serving.page.routes import PageSettings, page_routes

STATIC = Path(arkasr.serving.page.__file__).parent / "static"
SETTINGS = PageSettings("tiny", languages=("Chinese", "English"), max_bytes=5)


@pytest.fixture(scope="module")
def client():
    return TestClient(Starlette(routes=page_routes(SETTINGS)))


def referenced(text: str) -> set[str]:
    """Return the files that HTML or a module of JavaScript refers to."""
    return set(re.findall(r"""(?:href|src)="(?:page/)?([\w.]+)"|from "\./([\w.]+)\"""", text))


def test_every_file_is_served_with_its_type_and_is_reached_from_the_page(client):
    left, reached = ["index.html"], set()
    while left:
        name = left.pop()
        reached.add(name)
        answer = client.get("/" if name == "index.html" else f"/page/{name}")
        assert answer.status_code == 200 and answer.content == (STATIC / name).read_bytes()
        kinds = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
        assert answer.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
        left += {one or other for one, other in referenced(answer.text)} - reached
    assert reached == {path.name for path in STATIC.iterdir()}
    assert client.get("/page/routes.py").status_code == 404 == client.get("/page/..%2froutes.py").status_code


def test_policy_allows_no_inline_code_and_the_page_has_none(client):
    answer = client.get("/")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)|javascript:", answer.text)
    scripts = "".join(path.read_text() for path in STATIC.glob("*.js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", scripts)
    own = "http://www.w3.org/2000/svg"  # the name of a format, which nobody asks for
    assert not re.search(
        r"https?://\w", "".join(path.read_text().replace(own, "") for path in STATIC.iterdir() if path.suffix != ".js")
    )


def test_settings_name_languages_by_code_and_limits(client):
    assert client.get("/page/settings.json").json() == {
        "model": "tiny",
        "language": "en",
        "languages": [{"code": "zh", "name": "Chinese"}, {"code": "en", "name": "English"}],
        "trained": [],
        "word_times": False,
        "max_bytes": 5,
        "max_seconds": None,
    }
    with pytest.raises(UserError, match="Klingon"):
        page_routes(replace(SETTINGS, language="Klingon"))
