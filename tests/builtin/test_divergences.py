"""Numerics of the divergences."""

from __future__ import annotations

import torch

from arkasr.builtin import divergences


def test_log1mexp_matches_float64():
    x = torch.tensor([-1e-6, -1e-3, -0.5, -0.6931, -0.7, -5.0, -30.0, -200.0])
    expected = (-torch.expm1(x.double())).log()
    torch.testing.assert_close(divergences.log1mexp(x).double(), expected, rtol=1e-6, atol=1e-12)
    assert divergences.log1mexp(torch.tensor(-30.0)) < 0
