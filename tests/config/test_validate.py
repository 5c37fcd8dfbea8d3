"""Checks of values: the messages about keys that have a new name."""

from __future__ import annotations

import pytest
from renamed_config import RenamedConfig

from arkasr.config.validate import check_values
from arkasr.errors import UserError


def test_check_values_names_new_name_of_renamed_key():
    with pytest.raises(UserError) as caught:
        check_values(RenamedConfig, {"optim": {"max_lr": 2.0}}, "", "conf.yaml")
    assert str(caught.value) == "conf.yaml: optim.max_lr is now called optim.peak"
    with pytest.raises(UserError, match=r"^conf\.yaml: runs\.one\.speed is now called runs\.one\.rate$"):
        check_values(RenamedConfig, {"speed": 2.0}, "runs.one", "conf.yaml")
    assert check_values(RenamedConfig, {"optim": {"peak": 2}}, "", "conf.yaml") == {"optim": {"peak": 2.0}}
