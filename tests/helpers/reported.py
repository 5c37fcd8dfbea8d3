"""A small experiment with everything that report.html shows: five test sets, six runs, audio, and hostile texts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import soundfile
import yaml
from decoded import ENGLISH, MANDARIN, write_data, write_hypotheses
from json_lines import write_lines

HOSTILE = (
    "</script></style><img src=http://198.51.100.1/x onerror=alert(1)> \" onmouseover=alert(2) ' {{ 7 * 7 }} &lt;b&gt;"
)
LONG = "w" * 400
RAW = {**ENGLISH, "profiles": ["raw"]}  # the texts are shown as they are
MANDARIN_TEXTS = {"z1": "今天老师在公园吃面", "z2": "明天小猫喝水", "z3": "九个小猫在学校唱歌"}
ENGLISH_TEXTS = {
    "e1": "the cat sat on the mat",
    "e2": "a dog barked at the moon all night",
    "e3": "eight white camels sleep",
    "e4": "the rain stops",
    "e5": f"one {LONG} word",
}
RUNS = {
    "teacher": "none",
    "base": "supervised",
    "base_steps": "supervised",
    "base_opd": "opd",
    "base_td_opd": "opd",
    "longer name of a run": "supervised",
}
ENGLISH_SETS, MANDARIN_SETS = ("clean", "other", "noisy"), ("meeting", "net")


def write_audio(path: Path, seconds: float, seed: int = 0) -> Path:
    """Write a tone with noise, at 16 kHz."""
    time = np.arange(int(16000 * seconds)) / 16000
    noise = np.random.default_rng(seed).normal(0, 0.02, len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * 440 * time) + noise, 16000)
    return path


def add_audio(manifest: Path, folder: Path, without: tuple[str, ...] = (), **custom) -> None:
    """Give the cuts of a manifest audio of one second, speakers and custom fields."""
    cuts = [json.loads(line) for line in gzip.decompress(manifest.read_bytes()).splitlines()]
    for number, cut in enumerate(cuts):
        path = folder / f"{manifest.stem}-{number}.wav"
        if cut["id"] not in without:
            write_audio(path, 1.0, number)
        cut["recording"]["sources"][0]["source"] = str(path)
        cut["supervisions"][0]["speaker"] = f"speaker {number % 2} {HOSTILE if number == 0 else ''}"
        cut["custom"] = custom
    with gzip.open(manifest, "wt") as file:
        file.writelines(json.dumps(cut) + "\n" for cut in cuts)


def recognised(run: str, text: str, number: int) -> str:
    """Return what a run recognises: the better the run, the fewer tokens are wrong."""
    words = text.split() if " " in text else list(text)
    wrong = {"teacher": 0, "base_td_opd": 0, "base_opd": 1}.get(run, 2) if number else 3
    changed = ["x", *words[wrong:]] if wrong else words
    return (" " if " " in text else "").join(changed)


def rows_of_run(kind: str, steps: int = 130) -> list[dict]:
    """Return the rows of metrics.jsonl."""
    rows = []
    for step in range(1, steps + 1):
        row = {"step": step, "loss": 8 / step, "hours_seen": step / 100, "tokens_seen": 10.0 * step, "time/step": 2.0}
        if kind == "opd":
            row |= {"vuss": 20 - step / 30, "overlap": 0.3 + step / 1000, "stop_rate": 1.0, "cut_rate": 0.0}
            row |= {"loop_rate": 0.1 if step % 7 == 0 else 0.0, "empty_rate": 0.0}
        rows.append(row | ({"dev_error": 1 / step} if step % 40 == 0 else {}))
    return rows


def write_run(expdir: Path, run: str, kind: str) -> None:
    """Write the records of a training run. The teacher is pretrained and has none."""
    if kind == "none":
        return
    folder = expdir / run
    folder.mkdir(parents=True, exist_ok=True)
    record = {"commit": "0123456789ab", "versions": {"torch": "2.12"}, "started": "2026-01-01"}
    record |= {"command": f"arkasr train conf.yaml --run '{run}' {HOSTILE}"}
    record |= {"flops": 3e15, "wall_seconds": 3725.0, "hours": 1.5, "tokens": 1200.0} if run == "base_opd" else {}
    (folder / "run.json").write_text(json.dumps(record))
    config = {"run": run, "objective": kind, "train": {"steps": 130 if kind == "opd" else 90}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"model": {"path": f"{run} {HOSTILE}"}}))
    write_lines(folder / "metrics.jsonl", rows_of_run(kind, 130 if kind == "opd" else 40))


def write_experiment(root: Path, runs: dict[str, str] = RUNS) -> tuple[Path, Path]:
    """Write data and hypotheses. Returns the experiment directory and the data directory."""
    expdir, data = root / "exp", root / "data"
    texts = {name: ENGLISH_TEXTS | {HOSTILE: "some hostile words here"} for name in ENGLISH_SETS}
    texts |= dict.fromkeys(MANDARIN_SETS, MANDARIN_TEXTS)
    texts["noisy"][HOSTILE] = HOSTILE
    sets = {name: {**MANDARIN, "cuts": 3} for name in MANDARIN_SETS} | {"noisy": RAW}
    write_data(data, f"corpus {HOSTILE}", texts, ENGLISH)
    corpus = json.loads((data / "corpus.json").read_text())
    (data / "corpus.json").write_text(json.dumps(corpus | {"sets": sets}))
    for name in texts:
        add_audio(data / f"{name}.jsonl.gz", root / "audio", without=("e2",), condition=f"{name} {HOSTILE}")
    for run, kind in runs.items():
        write_run(expdir, run, kind)
        for name, known in texts.items():
            found = {key: recognised(run, text, number) for number, (key, text) in enumerate(known.items())}
            write_hypotheses(expdir, run, name, found)
    return expdir, data
