"""Which curves are drawn, and what is said of those that are not."""

from __future__ import annotations

from reported import rows_of_run

from arkasr.reporting.page import curves
from arkasr.reporting.page.looks import looks

LOOKS = looks({"base": "Base", "base_opd": "Base+OPD"})


def test_section_draws_each_quantity_of_the_runs_that_logged_it():
    metrics = {"base": rows_of_run("supervised", 90), "base_opd": rows_of_run("opd", 90)}
    found = curves.section(metrics, LOOKS)
    charts = {chart.title: [curve.look.title for curve in chart.curves] for chart in found.blocks[1].charts}
    assert charts == {
        "Loss of supervised training (nats per token), logarithmic axis": ["Base"],
        "Loss of distillation (nats per position), logarithmic axis": ["Base+OPD"],
        "Error rate on the dev clips (%)": ["Base", "Base+OPD"],
        "VUSS (tokens per position)": ["Base+OPD"],
        "Overlap of both top-k sets (share)": ["Base+OPD"],
        "Transcripts that end in a loop (share)": ["Base+OPD"],
    }
    constant = [line[0].text for line in found.blocks[3].lines]
    assert constant == [
        "Transcripts with a stop token (share): 1 at every logged step of Base+OPD",
        "Transcripts cut at the token cap (share): 0 at every logged step of Base+OPD",
        "Empty transcripts (share): 0 at every logged step of Base+OPD",
    ]


def test_section_shows_percent_and_numbers():
    found = curves.section({"base": rows_of_run("supervised", 90)}, LOOKS)
    table = found.blocks[-1].blocks[0]
    rows = [["".join(span.text for span in cell) for cell in row] for row in table.rows]
    assert ["Error rate on the dev clips (%)", "Base", "2", "2.5", "1.25", "1.25", "2.5"] in rows


def test_series_leaves_out_rows_without_a_number_and_without_counted_positions():
    rows = [{"step": 1, "vuss": 0.0, "loss": 0.0}, {"step": 2, "vuss": 5.0, "loss": None}, {"step": 3}]
    assert [list(each) for each in curves.series(rows, "vuss")] == [[2], [5]]
    assert [list(each) for each in curves.series(rows, "loss")] == [[1], [0]]
    assert curves.series(rows, "overlap") is None


def test_section_without_logs_is_absent_with_a_reason():
    assert "no run" in curves.section({"base": []}, LOOKS)
