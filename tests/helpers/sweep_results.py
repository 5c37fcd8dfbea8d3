"""Results of a sweep without any training: hypotheses with chosen errors, and costs."""

from __future__ import annotations

import json
from pathlib import Path

from lhotse import CutSet
from sweeps import write_sweep

from arkasr.sweeps.sweep_file import Sweep, read_sweep

TEXT = """
conf: CONF
shared: [teacher, base]
runs: [base_opd]
grid: {distill.top_k: [2, 4]}
seeds: [1, 2]
controls: [base, top_k-2]
"""
ONCE = TEXT.replace("shared: [teacher, base]", "once: [teacher]\nshared: [base]").replace(
    "[base, top", "[teacher, base, top"
)
SETS = ("test-a", "test-b")
COST = {"flops": 2e9, "wall_seconds": 60.0, "hours": 0.5, "tokens": 1000.0}


def references(datadir: Path, name: str) -> dict[str, str]:
    """Return the reference by clip."""
    return {cut.id: cut.supervisions[0].text for cut in CutSet.from_file(datadir / f"{name}.jsonl.gz")}


def write_run(folder: Path, datadir: Path, wrong: int, cost: dict | None = None) -> None:
    """Write a trained run whose first `wrong` words of each test set are wrong."""
    (folder / "final").mkdir(parents=True)
    (folder / "final/config.json").write_text("{}")
    (folder / "run.json").write_text(json.dumps(COST if cost is None else cost))
    (folder / "decode").mkdir()
    for name in SETS:
        left, rows = wrong, []
        for identity, text in references(datadir, name).items():
            words = text.split()
            bad, left = min(left, len(words)), left - min(left, len(words))
            hypothesis = " ".join(["wrong"] * bad + words[bad:])
            rows.append(
                {"id": identity, "hypothesis": hypothesis, "reference": text, "stopped": True, "looping": False}
            )
        (folder / "decode" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_results(tmp_path: Path, conf: Path, datadir: Path, text: str = TEXT) -> Sweep:
    """Write a sweep with all results but one: Base with 6 and 5 wrong words, the teacher, and two points."""
    sweep = read_sweep(write_sweep(tmp_path, conf, text))
    if sweep.file.once == ["teacher"]:
        write_run(tmp_path / "exp/once/teacher", datadir, 1)
    wrong = {"shared/teacher": (1, 2), "shared/base": (6, 5), "top_k-2/base_opd": (4, 4), "top_k-4/base_opd": (2, None)}
    for name, numbers in wrong.items():
        for seed, number in enumerate(numbers, 1):
            if number is not None:
                write_run(tmp_path / "exp" / f"seed-{seed}" / name, datadir, number)
    return sweep
