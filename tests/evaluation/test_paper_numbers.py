"""The paper's numbers."""

from __future__ import annotations

from arkasr.evaluation import paper_numbers


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
