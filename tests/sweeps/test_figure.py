"""sweep.png: what is drawn, and that equal results give an equal file."""

from __future__ import annotations

import pytest
from sweep_results import TEXT, write_results

from arkasr.sweeps.figure import _axis, draw
from arkasr.sweeps.table import read_table


def test_figure_is_deterministic_and_an_old_one_is_removed(conf, datadir, tmp_path):
    table = read_table(write_results(tmp_path, conf, datadir), tmp_path / "exp", datadir)
    (path,) = draw(table, tmp_path)
    first = path.read_bytes()
    draw(table, tmp_path)
    assert path.read_bytes() == first and first.startswith(b"\x89PNG")
    for results in table.results.values():
        for tallies in results.tallies.values():
            tallies.clear()
    assert draw(table, tmp_path) == [] and not path.exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("", ""), (["2", "4"], "distill.top_k")),
        (("distill.top_k: [2, 4]", "loss.name: [mse, x]"), (["mse", "x"], "loss.name")),
        (("grid: {distill.top_k: [2, 4]}\n", ""), (["teacher", "base", "base_opd"], "")),
    ],
)
def test_axis_is_the_key_of_a_grid_or_has_the_names_of_rows(conf, datadir, tmp_path, change, expected):
    text = TEXT.replace(*change).replace("controls: [base, top_k-2]", "")
    table = read_table(write_results(tmp_path, conf, datadir, text), tmp_path / "exp", datadir)
    assert _axis(table) == expected
