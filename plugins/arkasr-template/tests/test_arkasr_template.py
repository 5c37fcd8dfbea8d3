"""Tests of the loss. Install the package first: pip install -e '.[test]'."""

from __future__ import annotations

import pytest

from arkasr import UserError
from arkasr.testing import check_loss, create


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_loss_passes_plugin_check(temperature):
    check_loss(create("loss", "template", {"temperature": temperature}))


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temprature": 1.0}])
def test_invalid_options_raise(options):
    with pytest.raises(UserError, match="loss 'template'"):
        create("loss", "template", options)
