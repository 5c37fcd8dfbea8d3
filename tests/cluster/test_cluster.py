"""Two hosts with two ranks each, started by the recipe: one rank is killed, and the same command resumes the run."""

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

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo"),
]


def test_killed_rank_costs_only_the_steps_since_the_last_save(tmp_path):
    if reason := why_not():
        pytest.skip(reason)
    out = tmp_path / "cluster"
    words = ["--hosts", "2", "--ranks", "2", "--run", "base", "--only", "rank_killed", "--out", str(out)]
    command = [sys.executable, str(HERE / "cluster.py"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            printed, _ = process.communicate(timeout=600)
        finally:
            process.terminate()  # in case of a timeout: it removes its hosts
    assert process.returncode == 0, printed
    calm, killed = json.loads((out / "summary.json").read_text())
    assert calm["statuses"] == [0, 0]
    assert all(killed["statuses"]) and killed["orphans"] == 0
    assert killed["resumed_from"] in (0, 4, 8) and 0 <= killed["repeated"] == killed["at_step"] - killed["resumed_from"]
    assert killed["same"]
    assert f"{PREFIX}{process.pid}" not in ip("netns", "list") + ip("-o", "link")  # all hosts are removed
