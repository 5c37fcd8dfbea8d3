"""Predicted peaks of a distillation step compared with the growth of the resident set of a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "helpers" / "step_peak.py"


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's peak of the resident set")
def test_peaks_of_a_step_on_a_cpu_are_predicted_within_15_percent():
    """Measured once: 106 MiB up to the teacher's scores (predicted 98), 115 MiB in the whole step (122)."""
    at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT], env=os.environ | at_once, capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["predicted"] == pytest.approx(result["measured"], rel=0.15)
