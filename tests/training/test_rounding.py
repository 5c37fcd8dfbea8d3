"""`rounding`: other rounding errors under the same seed. Weights move by one last place, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from corpus_fixture import make_trainer
from torch import nn

from arkasr.config.load import load_config
from arkasr.errors import UserError
from arkasr.training.rounding import shift_last_places


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_trained_weight_moves_to_a_neighbouring_number(dtype):
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20)).to(dtype)
    model[0].bias.data.zero_()
    model[1].weight.requires_grad_(False)
    before = [weights.detach().clone() for weights in model.parameters()]
    shift_last_places(model, 3)
    moved, zero, frozen, bias = (weights.detach() for weights in model.parameters())
    assert torch.equal(zero, before[1]) and torch.equal(frozen, before[2])
    for new, old in ((moved, before[0]), (bias, before[3])):
        up, down = (torch.nextafter(old, torch.full_like(old, end)) for end in (torch.inf, -torch.inf))
        assert ((new == up) | (new == down)).all()
    assert 0.4 < (moved > before[0]).float().mean() < 0.6


def test_variant_is_repeatable_and_0_changes_nothing():
    weights = []
    for variant in (0, 1, 1, 2):
        torch.manual_seed(0)
        layer = nn.Linear(8, 8)
        state = torch.get_rng_state()
        shift_last_places(layer, variant)
        assert torch.equal(torch.get_rng_state(), state)
        weights.append(layer.weight.detach())
    none, first, again, second = weights
    torch.manual_seed(0)
    assert torch.equal(none, nn.Linear(8, 8).weight)
    assert torch.equal(first, again) and not torch.equal(first, second) and not torch.equal(first, none)


def test_runs_of_two_variants_have_equal_batches_and_almost_equal_first_losses(conf, datadir, tmp_path):
    rows = []
    for variant in (0, 5):
        trainer = make_trainer(conf, "base", tmp_path / str(variant), datadir, f"rounding={variant}")
        batches = iter(trainer.batches)
        read = []
        rows.append((trainer.take_step(read.append(batch) or batch for batch in batches), read))
    (row, read), (other, read_again) = rows
    assert [batch.ids for batch in read] == [batch.ids for batch in read_again]
    assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert row["gradient_norm"] != other["gradient_norm"]


def test_rounding_must_not_be_negative(conf):
    with pytest.raises(UserError, match="rounding must be from 0 to 2147483647, got -1"):
        load_config(conf, "base", "E", "D", ["rounding=-1"])
