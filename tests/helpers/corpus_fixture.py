"""A prepared corpus of short noisy tones, and a configuration of models with about 10,000 parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from arkasr.config.load import load_config
from arkasr.data.batches import Batch, evaluation_cuts, load_batch
from arkasr.data.checks import Rules
from arkasr.training.ranks import Ranks
from arkasr.training.train import Trainer

WORDS = ["one", "two", "three", "red", "blue", "green", "dogs", "cats", "run", "sleep"]
SIZES = {"train": 12, "dev": 4, "test-a": 5, "test-b": 3}
CONF = """
model:
  type: arkasr
  sizes:
    initializer_range: 0.2
    audio: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_mel_bins: 20}
    text: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1}
tokenizer: {kind: sentencepiece, vocab_size: 40}
data: {train: "{datadir}/base.jsonl.gz", max_seconds: 3, max_cuts: 3, num_buckets: 2}
optim: {lr: 1e-2, warmup_steps: 2}
train: {steps: 4, log_every: 1, eval_every: 2, eval_clips: 2, save_every: 2, keep: 2, threads: 1}
rollout: {max_new_tokens: 6}
decode: {max_new_tokens: 6, max_seconds: 8}
distill: {top_k: 4}
teacher: {name: qwen3_asr, options: {path: "{expdir}/teacher/final", dtype: float32, max_new_tokens: 6}}
runs:
  teacher:
    model:
      type: qwen3_asr
      sizes:
        initializer_range: 0.2
        audio:
          d_model: 16
          encoder_ffn_dim: 32
          encoder_layers: 1
          encoder_attention_heads: 2
          num_mel_bins: 20
          downsample_hidden_size: 4
          n_window: 50
          n_window_infer: 200
          max_position_embeddings: 50
        text:
          hidden_size: 16
          intermediate_size: 32
          num_hidden_layers: 1
          num_attention_heads: 2
          num_key_value_heads: 1
          head_dim: 8
    tokenizer: {kind: byte_bpe, vocab_size: 280}
    data: {train: "{datadir}/train.jsonl.gz"}
    train: {ctc_weight: 0.5}
  base: {train: {ctc_weight: 0.5}}
  base_opd: {objective: opd, model: {path: "{expdir}/base/final"}}
  base_td: {model: {path: "{expdir}/base/final"}, data: {train: "{expdir}/td_teacher.jsonl.gz"}}
  base_td_opd: {objective: opd, model: {path: "{expdir}/base_td/final"}}
"""

LONGER = ["train.steps=80", "train.eval_every=40", "train.save_every=60"]  # enough for the models to output some words


def make_cut(folder: Path, name: str, seconds: float, text: str) -> MonoCut:
    """Write a 16 kHz clip, a tone in noise with the name as seed, and return its cut."""
    rng = np.random.default_rng(list(name.encode()))
    times = np.arange(round(seconds * 16000)) / 16000
    samples = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 2000) * times) + 0.05 * rng.standard_normal(len(times))
    return cut_of(folder / f"{name}.wav", samples, text)


def cut_of(path: Path, samples: np.ndarray, text: str, rate: int = 16000) -> MonoCut:
    """Write samples as float WAV and return a cut of the whole file, with the name of the file as id."""
    soundfile.write(path, samples.astype(np.float32), rate, subtype="FLOAT")
    name, recording = path.stem, Recording.from_file(path, recording_id=path.stem)
    supervision = SupervisionSegment(name, name, 0.0, recording.duration, text=text, language="English", speaker="s1")
    return MonoCut(name, 0.0, recording.duration, 0, supervisions=[supervision], recording=recording)


def write_cuts(path: Path, cuts: Sequence[MonoCut]) -> str:
    """Write a manifest and return its path."""
    CutSet.from_cuts(cuts).to_file(path)
    return str(path)


def write_dev(folder: Path, datadir: Path, texts: Sequence[str]) -> float:
    """Write the dev set with these texts and one word more per clip. Return the error rate of the texts: deletions."""
    cuts = list(CutSet.from_file(datadir / "dev.jsonl.gz"))
    for cut, text in zip(cuts, texts, strict=True):
        cut.supervisions[0].text = f"{text} two"
    write_cuts(folder / "dev.jsonl.gz", cuts)
    (folder / "corpus.json").write_text((datadir / "corpus.json").read_text())
    return len(cuts) / sum(len(text.split()) + 1 for text in texts)


def write_corpus(folder: Path) -> Path:
    """Write a prepared data directory as stage 1 does: all sets and corpus.json."""
    (folder / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        texts = [" ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(size)]
        seconds = [round(s, 2) for s in rng.uniform(0.4, 1.2, size)]
        cuts = [make_cut(folder / "audio", f"{name}-{i:02d}", seconds[i], texts[i]) for i in range(size)]
        write_cuts(folder / f"{name}.jsonl.gz", cuts)
        if name == "train":
            write_cuts(folder / "base.jsonl.gz", cuts[:8])
            write_cuts(folder / "td.jsonl.gz", cuts[8:])
    facts = {"name": "tones", "language": "English", "profiles": ["unicode"], "scale": "mini"}
    sets = {"train": ["train", "base", "td"], "dev": "dev", "test_sets": ["test-a", "test-b"]}
    (folder / "corpus.json").write_text(json.dumps(facts | sets))
    return folder


def clips(manifest: str | Path, indices: Sequence[int] | None = None) -> Batch:
    """Load the cuts of a manifest at these indices (default: all) as one batch."""
    cuts = list(CutSet.from_file(manifest))
    return load_batch([cuts[i] for i in (range(len(cuts)) if indices is None else indices)])


def evaluation_batches(
    path: str | Path, max_seconds: float, done: Sequence[str] = (), rules: Rules | None = None
) -> list[Batch]:
    """Load all batches that `arkasr decode` transcribes."""
    return [load_batch(cuts) for cuts in evaluation_cuts(str(path), max_seconds, done, rules)]


def make_trainer(conf: Path, run: str, expdir: Path, datadir: Path, *overrides: str) -> Trainer:
    """Create the run's trainer in this process, as `arkasr train` does, but do not lock the run directory."""
    config = load_config(conf, run, str(expdir), str(datadir), overrides)
    (expdir / run).mkdir(parents=True, exist_ok=True)
    return Trainer(config, expdir / run, Ranks.of(config))


def metrics(folder: Path) -> list[dict[str, float]]:
    """Read the rows of metrics.jsonl in a run directory."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
