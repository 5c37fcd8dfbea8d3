"""Scores by profile: what scores.json holds of each, and profiles whose packages are not installed."""

from __future__ import annotations

from importlib import metadata

import pytest
from decoded import scores_of, write_data, write_hypotheses
from score_examples import rows_of

from arkasr.errors import UserError
from arkasr.reporting.score import score
from arkasr.scoring import profiles

TEXTS = {"u1": "COLOUR OF THE WHITE PAPER", "u2": "twenty five men", "u3": ""}
BASE = {"u1": "color of the whitepaper", "u2": "25 men", "u3": "thank you"}
OPD = {"u1": "colour of the white paper", "u2": "twenty five", "u3": ""}
NAMES = ["unicode", "paper", "leaderboard-2026-08", "raw"]


@pytest.fixture
def decoded(tmp_path):
    """Return the folders of an experiment with two decoded runs, and of its data."""
    data = write_data(tmp_path / "data", "libri", {"test": TEXTS}, {"language": "English", "profiles": NAMES})
    for run, texts in (("base", BASE), ("base_opd", OPD)):
        write_hypotheses(tmp_path / "exp", run, "test", texts)
    return tmp_path / "exp", data


def without_packages(monkeypatch):
    def version(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(profiles, "_version", version)


@pytest.mark.slow
def test_scores_hold_every_profile_and_the_entry_is_that_of_the_first(decoded):
    exp, data = decoded
    score(str(exp), str(data), ["base", "base_opd"])
    entry = scores_of(exp, "base_opd")["sets"]["test"]
    assert list(entry["profiles"]) == NAMES and entry["profile"] == {"name": "unicode", "version": "1", "packages": {}}
    base = {
        name: (e["errors"], e["reference_length"]) for name, e in scores_of(exp)["sets"]["test"]["profiles"].items()
    }
    assert base == {"unicode": (7, 8), "paper": (7, 8), "leaderboard-2026-08": (2, 7), "raw": (9, 8)}
    own = entry["profiles"]["unicode"]
    for key in ("metric", "errors", "reference_length", "rate_percent", "interval_percent", "against_base"):
        assert own[key] == entry[key], key
    found = {name: each["against_base"]["difference_percent"] for name, each in entry["profiles"].items()}
    assert found == {"unicode": -75.0, "paper": -75.0, "leaderboard-2026-08": pytest.approx(-14.2857), "raw": -37.5}
    packages = entry["profiles"]["leaderboard-2026-08"]["packages"]
    assert packages == {name: metadata.version(name) for name in ("whisper-normalizer", "kaldialign")}
    assert "against_base" not in scores_of(exp)["sets"]["test"]["profiles"]["paper"]


@pytest.mark.slow
def test_profile_without_its_package_is_left_out_with_the_remedy(decoded, monkeypatch, capsys):
    exp, data = decoded
    without_packages(monkeypatch)
    score(str(exp), str(data), ["base", "base_opd"])
    entry = scores_of(exp)["sets"]["test"]
    assert entry["profiles"]["leaderboard-2026-08"]["rate_percent"] is None and entry["rate_percent"] == 87.5
    what = "scoring profile leaderboard-2026-08: needs the package whisper-normalizer, which is not installed"
    printed, text = capsys.readouterr().out, (exp / "RESULTS.md").read_text()
    assert printed.count(f"warning: {what}; run pip install 'arkasr[leaderboard]'") == 1 and f"- {what}" in text
    part = text[text.index("### Scoring profiles") :]
    assert [row[4] for row in rows_of(part[part.index("|") : part.index("\n\n", part.index("|"))])[2:]] == ["-", "-"]


def test_first_profile_without_its_package_is_an_error_before_anything_is_written(decoded, monkeypatch):
    exp, _ = decoded
    facts = {"language": "English", "profiles": ["leaderboard-2026-08", "paper"]}
    data = write_data(exp.parent / "other", "libri", {"test": TEXTS}, facts)
    without_packages(monkeypatch)
    with pytest.raises(UserError, match="scoring profile leaderboard-2026-08: needs the package whisper-normalizer"):
        score(str(exp), str(data), ["base"])
    assert not (exp / "RESULTS.md").exists() and not (exp / "base" / "scores.json").exists()


@pytest.mark.slow
def test_a_test_set_that_was_not_decoded_has_no_rates(decoded):
    exp, data = decoded
    write_hypotheses(exp, "empty", "test", {})
    score(str(exp), str(data), ["base", "empty"])
    found = scores_of(exp, "empty")["sets"]["test"]["profiles"]
    assert list(found) == NAMES and {each["rate_percent"] for each in found.values()} == {None}
