"""Measure what the encoder of a Whisper model still knows when it becomes the student's.

    python benchmarks/encoder_positions.py --whisper DIR --clips test.jsonl --train train.jsonl

Each row of the table is one encoder with the weights of the same Whisper model:

- learned: as `model.encoder` assembles it, with Whisper's table of positions and no RoPE.
- rotary: with RoPE and without the table, as earlier versions of arkasr assembled it.
- both: with RoPE and the table.
- random: learned positions and fresh weights, the floor.

R2 is the share of the variance of Whisper's own states (audio padded to 30 s) that a linear map of the encoder's states
(audio not padded) explains. The map is fitted by ridge regression on every second clip and tested on the others, with
the best of several strengths. It is negative if the map is worse than the mean state. CER is that of a linear layer on
the frozen states, trained with CTC on characters and decoded greedily. It needs `--train`.
A manifest has one JSON object per line, with the keys `audio` (a path relative to the manifest) and `text`.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import jiwer
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperForConditionalGeneration

from arkasr.config.schema import ModelConfig
from arkasr.model.arkasr.encoder_arkasr import ArkasrEncoder
from arkasr.model.arkasr.published_weights import row_order
from arkasr.model.build import assemble
from arkasr.model.log_mel import HOP, log_mel, read_audio
from arkasr.testing.tiny import ARK_SIZES, student_tokenizer

RIDGES = (1.0, 10.0, 100.0, 1000.0)  # added to the squared singular values of standardised states
BATCH, LEARNING_RATE = 16, 0.01  # of the CTC probe
Clip = tuple[Tensor, str]


class BothPositions(ArkasrEncoder):
    """An encoder with RoPE that adds a table of positions too."""

    table: Tensor

    def _with_positions(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return hidden + self.table[positions], self.rotary_emb(hidden, position_ids=positions)


def encoders(path: str) -> dict[str, ArkasrEncoder]:
    """Build the encoders of the table.

    Args:
        path: Folder of a Whisper model.

    Returns:
        The encoders by the name of their row.
    """
    lm = assemble(ModelConfig(encoder=path, sizes={"text": ARK_SIZES["text"]}), student_tokenizer())
    learned: ArkasrEncoder = lm.hf.model.audio_tower
    weights, config = learned.state_dict(), copy.deepcopy(learned.config)
    table = weights.pop("embed_positions.weight")
    config.positions = "rotary"
    order = row_order(config)
    rotated = {name: t[order] if ".q_proj." in name or ".k_proj." in name else t for name, t in weights.items()}
    rotary, both = ArkasrEncoder(config), BothPositions(config)
    for encoder in (rotary, both):
        encoder.load_state_dict(rotated)
    both.table = table
    found = {"learned": learned, "rotary": rotary, "both": both, "random": ArkasrEncoder(learned.config)}
    return {name: encoder.eval().requires_grad_(False) for name, encoder in found.items()}


def read_clips(manifest: str, count: int) -> list[Clip]:
    """Read clips that are spread evenly over a manifest.

    Args:
        manifest: A file of JSON lines.
        count: Maximum number of clips.

    Returns:
        Waveforms [num_samples], float32, at 16 kHz, and transcripts.
    """
    rows = [json.loads(line) for line in Path(manifest).read_text(encoding="utf-8").splitlines()]
    rows = rows[:: max(1, len(rows) // count)][:count]
    return [(read_audio(Path(manifest).parent / row["audio"]), row["text"]) for row in rows]


def states_of(encoder: ArkasrEncoder, clips: Sequence[Clip]) -> list[Tensor]:
    """Encode clips without padding.

    Args:
        encoder: The encoder.
        clips: B clips.

    Returns:
        B tensors [T_i, d].
    """
    return [encoder(log_mel([clip], encoder.config.num_mel_bins)[0]).last_hidden_state[0] for clip, _ in clips]


def whispers_states(path: str, clips: Sequence[Clip]) -> list[Tensor]:
    """Encode clips with Whisper itself, padded to its window, and cut off the padding.

    Args:
        path: Folder of a Whisper model.
        clips: B clips.

    Returns:
        B tensors [T_i, d].
    """
    whisper = WhisperForConditionalGeneration.from_pretrained(path, dtype=torch.float32, trust_remote_code=False).eval()
    config, found = whisper.config, []
    for clip, _ in clips:
        padded = nn.functional.pad(clip, (0, 2 * config.max_source_positions * HOP - len(clip)))
        states = whisper.model.encoder(log_mel([padded], config.num_mel_bins)[0]).last_hidden_state[0]
        found.append(states[: (len(clip) // HOP + 1) // 2])
    return found


def linear_r2(inputs: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    """Fit targets linearly on every second clip and return the explained variance on the others.

    Args:
        inputs: B tensors [T_i, d].
        targets: B tensors [T_i, e].

    Returns:
        R2 over all dimensions, at most 1, with the best of `RIDGES`.
    """
    (x, y), (test_x, test_y) = (
        (torch.cat(list(inputs[half::2])).double(), torch.cat(list(targets[half::2])).double()) for half in (0, 1)
    )
    mean, spread, offset = x.mean(0), x.std(0).clamp(min=1e-6), y.mean(0)
    x, test_x = (x - mean) / spread, (test_x - mean) / spread
    gram, product, identity = x.T @ x, x.T @ (y - offset), torch.eye(x.shape[1], dtype=x.dtype)
    maps = [torch.linalg.solve(gram + ridge * identity, product) for ridge in RIDGES]
    least = min(float((test_y - offset - test_x @ found).square().sum()) for found in maps)
    return 1 - least / float((test_y - test_y.mean(0)).square().sum())


@dataclass
class CtcProbe:
    """A linear layer from states to characters.

    Attributes:
        layer: The layer [d to characters + 1]. The last class is the blank.
        alphabet: The characters.
        mean: Mean [d] of the training states.
        spread: Standard deviation [d] of the training states.
    """

    layer: nn.Linear
    alphabet: str
    mean: Tensor
    spread: Tensor

    @classmethod
    def train(cls, states: Sequence[Tensor], texts: Sequence[str], epochs: int) -> CtcProbe:
        """Train a probe with CTC.

        Args:
            states: B tensors [T_i, d].
            texts: B transcripts.
            epochs: Number of passes over the clips.

        Returns:
            The probe.
        """
        alphabet = "".join(sorted(set("".join(texts))))
        every = torch.cat(list(states))
        torch.manual_seed(0)
        layer = nn.Linear(every.shape[1], len(alphabet) + 1)
        probe = cls(layer, alphabet, every.mean(0), every.std(0).clamp(min=1e-6))
        optimizer = torch.optim.Adam(layer.parameters(), LEARNING_RATE)
        ids = [torch.tensor([alphabet.index(char) for char in text]) for text in texts]
        for _ in range(epochs):
            for chosen in torch.randperm(len(states)).split(BATCH):
                logits = [probe.logits(states[i]).log_softmax(-1) for i in chosen]
                loss = nn.functional.ctc_loss(
                    pad_sequence(logits),
                    torch.cat([ids[i] for i in chosen]),
                    torch.tensor([len(row) for row in logits]),
                    torch.tensor([len(ids[i]) for i in chosen]),
                    blank=len(alphabet),
                    zero_infinity=True,
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return probe

    def logits(self, states: Tensor) -> Tensor:
        """Return the scores [T, characters + 1] of states [T, d]."""
        return self.layer((states - self.mean) / self.spread)

    def text(self, states: Tensor) -> str:
        """Return the text of the best path through states [T, d]."""
        best = [index for index, _ in groupby(self.logits(states).argmax(-1).tolist())]
        return "".join(self.alphabet[index] for index in best if index < len(self.alphabet))


def main(argv: list[str] | None = None) -> None:
    """Measure the encoders and print a table.

    Args:
        argv: Command line arguments.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whisper", required=True, help="folder of a Whisper model")
    parser.add_argument("--clips", required=True, help="manifest of the clips for R2 and for the CER")
    parser.add_argument("--count", type=int, default=24, help="clips for R2 (default: 24)")
    parser.add_argument("--train", default="", help="manifest of the clips that train the CTC probe")
    parser.add_argument("--train_count", type=int, default=400, help="clips that train the probe (default: 400)")
    parser.add_argument("--test_count", type=int, default=100, help="clips for the CER (default: 100)")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training clips (default: 20)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    few = read_clips(args.clips, args.count)
    test = read_clips(args.clips, args.test_count) if args.train else []
    train = read_clips(args.train, args.train_count) if args.train else []
    print(f"{args.whisper}, {len(few)} clips for R2, {len(train)} and {len(test)} for the CER\n")
    print("| encoder | R2 | CER (%) |\n| --- | ---: | ---: |")
    with torch.no_grad():
        targets = whispers_states(args.whisper, few)
    for name, encoder in encoders(args.whisper).items():
        with torch.no_grad():
            r2 = linear_r2(states_of(encoder, few), targets)
            train_states, test_states = states_of(encoder, train), states_of(encoder, test)
        cer = "-"
        if train:
            probe = CtcProbe.train(train_states, [text for _, text in train], args.epochs)
            hypotheses = [probe.text(states) for states in test_states]
            cer = f"{100 * jiwer.cer([text for _, text in test], hypotheses):.1f}"
        print(f"| {name} | {r2:.3f} | {cer} |", flush=True)


if __name__ == "__main__":
    main()
