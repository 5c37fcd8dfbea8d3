"""Links and paths of all pages lead somewhere, and the site's navigation is complete."""

from __future__ import annotations

import re

import pytest
import yaml
from pages import PAGES, ROOT, slugs


def local_links() -> list:
    links = [
        (page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    ]
    return [pytest.param(*pair, id=f"{pair[0].name}:{pair[1]}") for pair in links if "://" not in pair[1]]


@pytest.mark.parametrize(("page", "link"), local_links())
def test_local_link_leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    assert target.exists() and (not anchor or anchor in slugs(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_names_existing_paths(page):
    names = re.findall(r"`((?:arkasr|benchmarks|docs|egs|plugins|tests)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    made_by_runs = ("/exp/", "/data/", "/downloads", "mycorpus")
    missing = [name for name in names if not (ROOT / name).exists() and not any(part in name for part in made_by_runs)]
    assert missing == []


def test_navigation_holds_every_page():
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = [page for entry in navigation for page in entry.values()]
    assert sorted(pages) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_index_names_every_page():
    links = re.findall(r"\]\((\w+\.md)\) \|$", (ROOT / "docs/index.md").read_text(encoding="utf-8"), re.M)
    assert sorted(["index.md", *links]) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
