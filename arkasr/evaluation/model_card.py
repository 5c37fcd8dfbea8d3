"""The model card: README.md of an exported folder. What is not known is said, not guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arkasr.evaluation import card_sections, paper
from arkasr.evaluation.lineage import Stage
from arkasr.evaluation.tables import interval
from arkasr.strict_yaml import to_yaml

CODES = {"English": "en", "Chinese": "zh"}

USE = """\
It needs the Python package `arkasr` (`pip install -e .` in a clone of its repository); no remote code is run.

```python
import soundfile
from arkasr import ArkasrForConditionalGeneration, ArkasrProcessor  # with these, transformers knows Ark-ASR
from transformers import AutoModelForCausalLM, AutoProcessor

folder = "."  # this repository: a folder, or its address on the Hub
processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)

samples, rate = soundfile.read("clip.wav", dtype="float32")  # one channel at 16 kHz
inputs = processor(samples, sampling_rate=rate)
ids = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
print(processor.batch_decode(ids, skip_special_tokens=True)[0].strip())
```

`generation_config.json` holds what a transcript needs: greedy choice, the stop token, and the ids that never stand in
one."""
METHOD = """\
An encoder with rotary positions, an adapter that merges frames, and a Qwen2 decoder that writes the transcript after
the audio: the architecture of Ark-ASR ([arXiv:2605.28139](https://arxiv.org/abs/2605.28139)), trained with `arkasr`.
"""
LAYOUTS = {
    False: "The files are in arkasr's own layout: config.json holds the encoder's and the decoder's configuration.",
    True: "The files are in the layout in which Ark-ASR was published (flat config.json, `audio_encoder.*` weights), "
    "which arkasr reads too. Code that is not arkasr's was not tried with them, nor does this folder hold any.",
}
MINIATURE = """\
- **Miniature.** A small model, trained on little data to show that the recipe works. It is of no use as a recogniser,
  and its error rates are not comparable to the paper's, nor to those of any other test."""
PAPER_SCALE = "- This is not the model that the paper's authors published, and their data was another."


@dataclass(frozen=True)
class Card:
    """What a card is written from.

    past: the runs that made the model, it last; corpus: corpus.json; weights: `final` or a checkpoint's name; size:
    parameters; scores: scores.json of these weights, None where they were not scored; terms: the licence, or empty;
    spoken: whether stage 0 spoke the corpus, None where that cannot be told.
    """

    past: Sequence[Stage]
    corpus: dict[str, Any]
    weights: str
    size: int
    published: bool
    scores: dict[str, Any] | None
    terms: str
    spoken: bool | None

    @property
    def last(self) -> Stage:
        """The run itself."""
        return self.past[-1]

    @property
    def mini(self) -> bool:
        """Whether it is of the miniature scale."""
        return self.corpus.get("scale") != "paper"

    @property
    def name(self) -> str:
        """The title."""
        return f"Ark-ASR {paper.title(self.last.run)}, {self.corpus['name']}" + (", miniature" if self.mini else "")

    @property
    def language(self) -> str:
        """The language's name, empty where the corpus tells none."""
        return self.corpus.get("language", "")


def _index(card: Card) -> list[dict[str, Any]]:
    """Return the results as the Hub's model-index has them; a set without a rate is left out."""
    metric, results = card.corpus["metric"], []
    for name, got in (card.scores or {"sets": {}})["sets"].items():
        if got["rate_percent"] is not None:
            said = f"{metric.upper()} in percent, 95 % interval{interval(got['interval_percent'])}"
            corpus = f"{card.corpus['name']} {name}" + (" (miniature)" if card.mini else "")
            results.append({
                "task": {"type": "automatic-speech-recognition"},
                "dataset": {"name": corpus, "type": card.corpus["name"], "split": name},
                "metrics": [{"type": metric, "name": said, "value": round(got["rate_percent"], 2)}],
            })  # fmt: skip
    return results


def front_matter(card: Card) -> dict[str, Any]:
    """Return the card's YAML, by the Hub's names; what is not known is left out."""
    parts = [part for stage in card.past for part in stage.parts]
    results = _index(card)
    found = {
        "language": [CODES[card.language]] if card.language in CODES else None,
        "license": card.terms or None,
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["arkasr", "on-policy-distillation"] if card.last.config["objective"] == "opd" else ["arkasr"],
        "datasets": [card.corpus["name"]] if card.spoken is False else None,
        "metrics": [card.corpus["metric"]],
        "base_model": list(dict.fromkeys(parts)) or None,
        "model-index": [{"name": card.name, "results": results}] if results else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _what(card: Card) -> str:
    weights = (
        "its last weights" if card.weights == "final" else f"its checkpoint `{card.weights}`, not its last weights"
    )
    about = f"{card.size:,} parameters, from the run `{card.last.run}`: {weights} (step {card.last.step})."
    return f"{METHOD}\n{about} {LAYOUTS[card.published]}"


def _limits(card: Card) -> str:
    known, data = card.language or "The one language of its corpus", card.last.config["data"]
    tested = ", ".join(card.scores["sets"]) if card.scores else "nothing"
    return "\n".join([
        MINIATURE if card.mini else PAPER_SCALE,
        f"- Language: {known} alone; others were neither trained nor tested here.",
        f"- Clips longer than {data['max_clip_seconds']:g} s or shorter than {data['min_clip_seconds']:g} s were not "
        "trained on.",
        f"- Tested on {tested}. Not tested: anything else, such as other accents, noise, far microphones, several "
        "speakers at once, music, streaming, and whether some speakers are recognised worse than others.",
    ])  # fmt: skip


def page(card: Card) -> str:
    """Return the whole README.md."""
    stated = f"`{card.terms}`, as stated by who exported this model."
    terms = stated if card.terms else "Not stated. Who shares this model is to state one that its data allows."
    sections = {
        "How to use it": USE,
        "Results": card_sections.results(card.weights, card.scores),
        "Data": card_sections.data(card.past, card.corpus, card.spoken),
        "Training": card_sections.training(card.past),
        "Recipe and commands": card_sections.commands(card.past),
        "Versions": card_sections.versions(card.past),
        "Licence": terms,
        "Limits": _limits(card),
    }
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
    return f"---\n{to_yaml(front_matter(card))}---\n\n# {card.name}\n\n{_what(card)}\n{body}"
