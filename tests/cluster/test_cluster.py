"""Two hosts of two ranks each, by the recipe: a rank is killed, and the same command ends with the same weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

HERE = Path(__file__).parent
sys.path.append(str(HERE))

from hosts import PREFIX, ip, why_not  # noqa: E402

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")


def test_a_killed_rank_costs_the_steps_since_the_last_save_and_no_more(tmp_path):
    if reason := why_not():
        pytest.skip(reason)
    out = tmp_path / "cluster"
    words = ["--hosts", "2", "--ranks", "2", "--run", "base", "--only", "rank_killed", "--out", str(out)]
    command = [sys.executable, str(HERE / "cluster.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as made:
        try:
            printed, _ = made.communicate(timeout=600)
        finally:
            made.terminate()  # where it is not done: it takes its hosts down
    assert made.returncode == 0, printed
    calm, killed = json.loads((out / "summary.json").read_text())
    assert calm["statuses"] == [0, 0]
    assert all(killed["statuses"]) and killed["orphans"] == 0
    assert killed["resumed_from"] in (0, 4, 8) and 0 <= killed["repeated"] == killed["at_step"] - killed["resumed_from"]
    assert killed["same"]
    assert f"{PREFIX}{made.pid}" not in ip("netns", "list") + ip("-o", "link")  # all hosts are taken down
