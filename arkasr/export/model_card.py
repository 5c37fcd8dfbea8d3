"""The model card: README.md of an exported folder. What is not known is said, not guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arkasr.config.yaml_io import to_yaml
from arkasr.evaluation import paper_numbers
from arkasr.evaluation.tables import interval, markdown, number
from arkasr.export import model_card
from arkasr.export.provenance import Stage

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
        return f"Ark-ASR {paper_numbers.title(self.last.run)}, {self.corpus['name']}" + (
            ", miniature" if self.mini else ""
        )

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
        "Results": model_card.results(card.weights, card.scores),
        "Data": model_card.data(card.past, card.corpus, card.spoken),
        "Training": model_card.training(card.past),
        "Recipe and commands": model_card.commands(card.past),
        "Versions": model_card.versions(card.past),
        "Licence": terms,
        "Limits": _limits(card),
    }
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
    return f"---\n{to_yaml(front_matter(card))}---\n\n# {card.name}\n\n{_what(card)}\n{body}"


ORIGINS = {
    True: ": the miniature that `arkasr download` speaks with espeak-ng. Synthetic voices, no recordings of people",
    False: "",
    None: "; whether its speech was recorded or synthesised cannot be told any more",
}


def data(past: Sequence[Stage], corpus: dict[str, Any], spoken: bool | None) -> str:
    """Return what the runs were trained on and tested with, in hours."""
    sets, rows = corpus.get("sets") or {}, []
    used, tested = [stage.data for stage in past], corpus["test_sets"]
    for name in dict.fromkeys([*used, corpus.get("dev", "dev"), *tested]):
        facts = sets.get(name, {})
        use = "trained on" if name in used else "tested on" if name in tested else "watched while training"
        cells = [number(facts.get("hours"), 2), str(facts.get("cuts", "-")), str(facts.get("speakers") or "-")]
        rows.append([name, use, *cells])
    lines = [f"Corpus `{corpus['name']}`{ORIGINS[spoken]}."]
    lines.append(markdown(["Set", "Use", "Hours", "Utterances", "Speakers"], rows))
    if "td" in used:
        why = "clips in which it heard nothing, or that `teacher_data.max_error` ruled out, were left out"
        lines.append(f"The transcripts of `td` are the teacher's; {why}.")
    limits = {stage.run: stage.config["data"]["hours"] for stage in past if stage.config["data"]["hours"]}
    lines += [f"`{run}` was trained on {hours:g} h drawn from its set." for run, hours in limits.items()]
    return "\n\n".join(lines)


def results(weights: str, scores: dict[str, Any] | None) -> str:
    """Return the error rates with their intervals, or that there are none."""
    if weights != "final":
        return "These weights are not scored: only a run's last weights are."
    if scores is None:
        return "This model is not scored."
    unit = "words" if scores["metric"] == "wer" else "characters"
    rows = [
        [name, str(got["utterances"]), number(got["rate_percent"]) + interval(got["interval_percent"])]
        for name, got in scores["sets"].items()
    ]
    scorer = scores["normalizer"]
    how = (
        f"All errors over all reference {unit}, in percent, and a 95 % bootstrap interval over utterances (it does not "
        f"cover how a run varies with its seed). Normaliser `{scorer['name']}` version {scorer['version']}."
    )
    return f"{markdown(['Test set', 'Utterances', scores['metric'].upper() + ' [95 %]'], rows)}\n\n{how}"


def training(past: Sequence[Stage]) -> str:
    """Return a row a run: where it started, how it was trained, on how much, and how that ended."""
    rows = []
    for stage in past:
        config, distilled = stage.config, stage.config["objective"] == "opd"
        path = config["teacher"]["options"].get("path", "")
        teacher = config["teacher"]["name"] + (f" (`{path}`)" if path else "")
        seconds = None if stage.hours is None else 3600 * stage.hours
        dev = None if stage.dev_error is None else 100 * stage.dev_error
        start = stage.parent or ", ".join(stage.parts) or config["model"]["path"] or "fresh weights"
        method = ("distillation", teacher, config["mapper"]["name"]) if distilled else ("supervised", "-", "-")
        measured = [str(stage.step), number(seconds, 0), number(stage.loss, 3), number(dev)]
        rows.append([stage.run, start, *method, stage.data, *measured])
    names = ["Run", "Starts from", "Training", "Teacher", "Mapper", "Data", "Steps", "Audio seconds", "Loss", "Dev %"]
    note = (
        "Audio seconds count a clip as often as it was heard. The loss is the last that was logged: cross-entropy "
        "where training was supervised, a divergence from the teacher where it was distillation."
    )
    return f"{markdown(names, rows)}\n\n{note}"


def commands(past: Sequence[Stage]) -> str:
    """Return the commands that made the model, as they were recorded."""
    recipes = dict.fromkeys(stage.recipe for stage in past if stage.recipe)
    lines = ["# the recipe", *recipes] if recipes else []
    lines += [stage.command or f"# {stage.run}: no command was recorded" for stage in past]
    return (
        "```sh\n"
        + "\n".join(lines)
        + "\n```\n\n`training_config.yaml` holds every setting of the last run. Folders of "
        "the machine that trained are left out: `...` stands for them, `{expdir}` and `{datadir}` for the run's own."
    )


def versions(past: Sequence[Stage]) -> str:
    """Return commit and versions of each group of runs that share them."""
    groups: dict[str, list[str]] = {}
    for stage in past:
        found = ", ".join(f"{name} {value}" for name, value in stage.versions.items()) or "versions not recorded"
        groups.setdefault(f"commit `{stage.commit or 'not recorded'}`; {found}", []).append(stage.run)
    lines = [f"- {', '.join(runs)}: {said}" for said, runs in groups.items()]
    return "\n".join(lines) + "\n\nA `+` after a commit: with changes that it does not hold."
