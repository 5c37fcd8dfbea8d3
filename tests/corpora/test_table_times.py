"""Times of table rows in the spellings of all formats."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.corpora.layouts.entries import BACKWARDS, BEFORE_BEGIN
from arkasr.corpora.layouts.table_times import END_AND_DURATION, NOT_A_TIME, Times, times

PROPERTY = settings(max_examples=100, deadline=None)
SECONDS = st.floats(0, 1e5, allow_nan=False)


@pytest.mark.parametrize(
    "values, expected",
    [
        ((None, None, None), Times()),
        (("", "", ""), Times()),
        ((-1, -1, None), Times()),  # the published repository's "whole file"
        ((-1.0, "-1", None), Times()),
        ((None, None, 3.5), Times()),  # a duration alone describes the file
        ((0.0, None, 3.5), Times(0.0, 3.5)),  # NeMo
        ((2.5, None, 1.0), Times(2.5, 3.5)),
        ((2.5, None, None), Times(2.5, None)),
        ((2.5, -1, None), Times(2.5, None)),
        ((None, 4, None), Times(0.0, 4.0)),
        (("1.5", " 2.5", None), Times(1.5, 2.5)),
        ((1, 3, 2.004), Times(1.0, 3.0)),
        ((1, 3, 1), Times(fault=END_AND_DURATION)),
        ((-1, 3, None), Times(fault=BEFORE_BEGIN)),
        ((-0.5, 3, None), Times(fault=BEFORE_BEGIN)),
        ((3, 2, None), Times(3.0, 2.0, BACKWARDS)),
        ((3, 3, None), Times(3.0, 3.0, BACKWARDS)),
        ((0, -2, None), Times(0.0, -2.0, BACKWARDS)),
        ((math.nan, 3, None), Times(fault=NOT_A_TIME)),
        ((0, math.inf, None), Times(fault=NOT_A_TIME)),
        ((0, "nan", None), Times(fault=NOT_A_TIME)),
        ((0, "1_0", None), Times(fault=NOT_A_TIME)),
        (("00:01", 3, None), Times(fault=NOT_A_TIME)),
        ((True, 3, None), Times(fault=NOT_A_TIME)),
        (([1], 3, None), Times(fault=NOT_A_TIME)),
        ((10**400, None, None), Times(fault=NOT_A_TIME)),
    ],
)
def test_times_of_every_format(values, expected):
    assert times(*values) == expected


@PROPERTY
@given(SECONDS, SECONDS)
def test_times_round_trip_as_numbers_and_as_text(one, other):
    start, end = sorted((one, other))
    expected = Times(start, end, "" if start < end else BACKWARDS)
    assert times(start, end, None) == times(repr(start), repr(end), None) == expected


@PROPERTY
@given(SECONDS, st.floats(1e-3, 1e5))
def test_start_and_duration_give_the_end(start, duration):
    assert times(start, None, duration) == Times(start, start + duration)
