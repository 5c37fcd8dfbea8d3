"""The paper's numbers."""

from __future__ import annotations

from pathlib import Path

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.published_tables import AVERAGE, TABLES
from arkasr.evaluation.results_io import TestSet


def test_paper_numbers_match_text_of_paper():
    # The changes are in the text of section 5.1, the means in section 5.2.
    for column, before, after in zip(
        paper_numbers.COLUMNS, (3.48, 10.22, 7.74, 3.75, 7.17), (3.00, 7.18, 6.13, 2.88, 5.50)
    ):
        assert (paper_numbers.rate("base", column), paper_numbers.rate("base_opd", column)) == (before, after)
    final = [paper_numbers.rate("base_td_opd", column) for column in paper_numbers.COLUMNS]
    assert final == [1.95, 5.92, 5.39, 2.45, 4.56]
    wins = [student < reference for student, reference in zip(final, paper_numbers.TABLE1["qwen3_asr_0.6b"][1])]
    assert wins == [True, False, True, True, True]
    assert [paper_numbers.TABLE2[run][0] for run in ("base_opd", "base_td_opd")] == [53.06, 51.61]


def test_card_tables_hold_the_numbers_of_the_card_and_agree_with_table_1():
    """The average of each row is the mean of its columns. The Chinese numbers of Qwen3-ASR are those of Table 1."""
    for name in ("english", "chinese"):
        table = TABLES[name]
        for _, (*rates, average) in table.rows.values():
            assert len(rates) == len(table.columns) and abs(sum(rates) / len(rates) - average) < 0.006
    english, chinese = TABLES["english"], TABLES["chinese"]
    assert (english.rate("base_td_opd", "AMI"), english.rate("teacher", "VoxPopuli")) == (11.67, 6.35)
    assert (english.rate("base_td_opd", AVERAGE), chinese.rate("base_td_opd", AVERAGE)) == (6.64, 4.30)
    for row in ("qwen3_asr_0.6b", "teacher"):
        for column in chinese.columns:
            assert chinese.rate(row, column) == paper_numbers.rate(row, column)
    assert english.rate("base", "AMI") is None and english.model("base") == ""
    assert {*english.columns, *chinese.columns} == {*paper_numbers.COLUMNS, *paper_numbers.CARD_COLUMNS}


def test_columns_of_the_card_are_known_but_not_in_table_1():
    sets = [TestSet(name, Path(), "wer", "english", column=name) for name in ("AMI", "Libri clean", "voxpopuli")]
    assert paper_numbers.columns(sets) == {"Libri clean": "Libri clean"}
    assert paper_numbers.rate("base", "voxpopuli") is None
