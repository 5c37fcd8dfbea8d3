"""report.html of small experiments, read by a parser: what it holds, escapes and leaves out."""

from __future__ import annotations

import shutil
from html.parser import HTMLParser

import pytest
from decoded import scores_of
from reported import HOSTILE, RUNS, write_experiment
from score_examples import METRICS, SCORES, SETS

from arkasr.cli import main
from arkasr.errors import UserError
from arkasr.reporting import report
from arkasr.reporting.page import page
from arkasr.reporting.page.experiment import Experiment
from arkasr.reporting.score import score, write_page

TAGS = """
html head meta link title style body a div header h1 h2 h3 h4 p nav ul li main section strong code pre bdi table thead
tbody tr th td figure figcaption svg g path text circle rect details summary article audio dl dt dd span del ins footer
"""


class Page(HTMLParser):
    """Tags, attributes and texts of a page. A section's texts are joined under its heading."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.sections, self.name = [], [], {}, ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "section":
            self.name = dict(attrs)["id"]

    def handle_data(self, data):
        self.sections[self.name] = self.sections.get(self.name, "") + data


def rendered(scores=SCORES, metrics=METRICS, records=None, **options):
    records = records or {run: {"config": {}} for run in scores}
    parts = report.sections("exp", "data", SETS, scores, metrics, records, [])
    return Page(page.render(Experiment("exp", SETS, scores, metrics, records), parts, **options))


def test_page_names_what_is_not_shown_with_the_reason():
    absent = rendered().sections["not-in-this-page"]
    assert "Utterances: test-clean: data/test-clean.jsonl.gz: no such file" in absent
    assert "Error rate by duration, condition and speaker: scores.json has no parts" in absent
    assert "Comparison with controls: it needs" in absent and "Settings: fewer than two runs" in absent


def test_page_has_the_sections_of_results_without_its_figures():
    found = rendered()
    for name in ("overview", "table-1-error-rates", "change-from-base", "training-curves", "counts", "environment"):
        assert found.sections[name].strip()
    assert "27.37" not in found.sections["table-1-error-rates"] and "20.00" in found.sections["table-1-error-rates"]
    assert "figures" not in found.sections and "img" not in found.tags
    order = list(found.sections)
    assert order.index("overview") < order.index("table-1-error-rates") < order.index("training-curves")
    assert order.index("training-curves") < order.index("counts") < order.index("environment")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("reported")
    expdir, data = write_experiment(root)
    score(str(expdir), str(data), list(RUNS))
    return root


@pytest.fixture
def scored(original, tmp_path):
    """A copy of a scored experiment, and its data."""
    root = shutil.copytree(original, tmp_path / "copy")
    for path in root.glob("exp/*/scores.json"):
        path.write_text(path.read_text().replace(str(original), str(root)))
    return root / "exp", root / "data"


@pytest.mark.slow
def test_page_of_hostile_texts_has_no_other_tags_and_attributes(original):
    found = Page((original / "exp" / "report.html").read_text())
    assert set(found.tags) <= set(TAGS.split())
    names = {name for name, _ in found.attributes}
    assert not {name for name in names if name.startswith("on")} and "alert" not in " ".join(names)
    assert all(value.startswith(("#", "data:")) for name, value in found.attributes if name in ("href", "src"))
    for name in ("", "utterances", "settings", "runs"):
        assert HOSTILE in found.sections[name]  # with the braces, so that no template has read them
    assert "missing audio file" in found.sections["utterances"]
    assert found.sections["comparison-with-controls"].strip() and "not-in-this-page" not in found.sections


def test_control_characters_and_halves_of_surrogate_pairs_are_replaced():
    scores = {"base\x00\ud800": SCORES["base"]}
    found = rendered(scores, {"base\x00\ud800": []})
    assert "base\ufffd\ufffd" in found.sections["table-1-error-rates"]


@pytest.mark.slow
def test_report_writes_the_page_again_and_nothing_else(scored, capsys):
    expdir, data = scored
    before = {path: path.read_bytes() for path in expdir.rglob("*") if path.is_file()}
    assert main(["report", "--expdir", str(expdir), "--datadir", str(data), "--audio_mib", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("exp/report.html")
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert changed == {"report.html"}
    text = (expdir / "report.html").read_text()
    assert "<audio" not in text and "audio was not asked for" in text
    write_page(str(expdir), str(data))
    assert "<audio" in (expdir / "report.html").read_text()


@pytest.mark.slow
def test_report_shows_what_is_left_if_files_are_missing_or_damaged(scored):
    expdir, data = scored
    (data / "clean.jsonl.gz").unlink()
    (expdir / "base_opd" / "decode" / "other.jsonl").write_text("{")
    scores_before = scores_of(expdir, "base_opd")
    write_page(str(expdir), str(data))
    found = Page((expdir / "report.html").read_text())
    shown = found.sections["utterances"]
    assert "Not shown: clean:" in shown and "no such file" in shown
    assert "Not shown: other, base_opd:" in shown and "not valid JSON" in shown
    assert "Most improved by Base+OPD" in shown  # in the other sets
    assert scores_of(expdir, "base_opd") == scores_before


@pytest.mark.parametrize("decoded", [False, True])
def test_report_without_scores_says_what_to_do(tmp_path, decoded):
    (tmp_path / "base" / "final").mkdir(parents=True)
    if decoded:
        (tmp_path / "base" / "decode").mkdir()
    with pytest.raises(UserError, match=r"no run in it was scored; .*--stage 4"):
        write_page(str(tmp_path), str(tmp_path))
    with pytest.raises(UserError, match="no such folder"):
        write_page(str(tmp_path / "absent"), str(tmp_path))


@pytest.mark.parametrize("value", ["-1", "many", "nan", "inf", ""])
def test_report_refuses_a_limit_of_audio_that_is_no_size(value, capsys):
    with pytest.raises(SystemExit):
        main(["report", "--expdir", "exp", "--datadir", "data", "--audio_mib", value])
    assert "must be a number" in capsys.readouterr().err
