"""The loss keeps its protocol's promises, and its options are checked. Install the package before: pip install -e ."""

from __future__ import annotations

import pytest

from arkasr import UserError
from arkasr.testing import check_loss, create


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_it_keeps_the_promises_of_a_loss(temperature):
    check_loss(create("loss", "template", {"temperature": temperature}))


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temprature": 1.0}])
def test_options_are_checked(options):
    with pytest.raises(UserError, match="loss 'template'"):
        create("loss", "template", options)
