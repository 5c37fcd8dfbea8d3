"""The model card (README.md) of an exported folder. Unknown facts are left out or stated as unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from arkasr.export.card_facts import ADAPTED, NATIVE, ONNX, PUBLISHED, CardFacts
from arkasr.export.card_texts import ENGINES, METHODS, TITLES, usage
from arkasr.export.onnx import texts
from arkasr.export.provenance import Stage
from arkasr.export.redact import public_text
from arkasr.languages import known_language
from arkasr.reporting.markdown import format_interval, format_number, markdown_table
from arkasr.reporting.profile_table import profile_names
from arkasr.reporting.shown_sets import shown_sets
from arkasr.reporting.tables import doubts, marker
from arkasr.scoring.profiles import find_profile

ADAPTER_USAGE = """\
You need the Python packages `arkasr` (`pip install -e '.[lora]'` in a clone of its repository) and `peft`. No remote
code is run.

```python
from arkasr import ArkasrForConditionalGeneration  # registers Ark-ASR with transformers
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoProcessor

folder = "."  # a local copy of this repository
base = PeftConfig.from_pretrained(folder).base_model_name_or_path
processor = AutoProcessor.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
```

`arkasr.load_speech_lm(folder)` loads base and adapter, merged. `model.path` of a configuration accepts the folder."""
LAYOUT_TEXTS = {
    NATIVE: "The files are in the native layout of arkasr: "
    "config.json holds the configurations of encoder and decoder.",
    PUBLISHED: "The files are in the layout in which Ark-ASR was published (flat config.json, "
    "`audio_encoder.*` weights), which arkasr reads too. This folder contains no code. `docs/other_engines.md` of "
    "arkasr says which programs read it, and which files of the published model they need beside it.",
    ADAPTED: "The files are the LoRA adapter alone, in PEFT's layout, with the projector if it was trained. They need "
    "the model that was adapted, whose path or id is `base_model_name_or_path` in adapter_config.json.",
    ONNX: texts.LAYOUT,
}
LIBRARIES = {ADAPTED: "peft", ONNX: "onnx"}  # transformers for other layouts
MINIATURE = """\
- **Miniature.** A small model, trained on little data to show that the recipe works. It is not useful as a recogniser.
  Its error rates are not comparable to the paper's or to those of any other test."""
PAPER_SCALE = "- This is not the model that the authors of the paper published. It was trained on other data."
ORIGINS = {
    True: ": the miniature synthesised by `arkasr download` with espeak-ng. Synthetic voices, no recordings of people",
    False: "",
    None: ". It is unknown whether its speech is recorded or synthesised",
}


def build_card(facts: CardFacts) -> ModelCard:
    """Build the model card. It is not validated by the Hub, because that needs network access.

    Args:
        facts: What the card states.

    Returns:
        The card with its metadata block and its text.
    """
    stated = f"`{facts.terms}`, as stated by the person who exported this model."
    not_stated = "Not stated. Before you share this model, state a licence that its training data allows."
    sections = {
        "How to use it": _usage(facts),
        "Results": _results(facts.weights, facts.scores),
        "Data": _data(facts.stages, facts.corpus, facts.synthetic),
        "Training": _training(facts.stages),
        "Recipe and commands": _commands(facts.stages),
        "Versions": _versions(facts.stages),
        "Licence": stated if facts.terms else not_stated,
        "Limits": _limits(facts),
        **facts.onnx,
    }
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
    return ModelCard(f"---\n{metadata(facts).to_yaml()}\n---\n\n# {facts.name}\n\n{_summary(facts)}\n{body}")


def metadata(facts: CardFacts) -> ModelCardData:
    """Build the metadata block of the card. Unknown values are left out.

    Args:
        facts: What the card states.

    Returns:
        Metadata with the Hub's keys. `model-index` holds the error rates.
    """
    parts = [part for stage in facts.stages for part in stage.parts]
    results = _eval_results(facts)
    return ModelCardData(
        language=[found.code for name in facts.languages if (found := known_language(name))] or None,
        license=facts.terms or None,
        library_name=LIBRARIES.get(facts.layout, "transformers"),
        pipeline_tag="automatic-speech-recognition",
        tags=["arkasr", "on-policy-distillation"] if facts.last.config["objective"] == "opd" else ["arkasr"],
        datasets=[facts.corpus["name"]] if facts.is_published_corpus else None,
        metrics=_metrics(facts),
        base_model=list(dict.fromkeys(parts)) or None,
        model_name=facts.name if results else None,  # without results it would be a key of the block
        eval_results=results or None,
    )


def _eval_results(facts: CardFacts) -> list[EvalResult]:
    """Return one result per test set. Test sets without an error rate are left out."""
    sets = facts.scores["sets"] if facts.scores else {}
    return [
        _eval_result(name, summary, summary.get("corpus") or facts.corpus["name"])
        for name, summary in sets.items()
        if summary.get("rate_percent") is not None
    ]


def _eval_result(name: str, summary: dict[str, Any], corpus: str) -> EvalResult:
    metric = summary["metric"]
    return EvalResult(
        task_type="automatic-speech-recognition",
        dataset_name=f"{corpus} {name}" + (" (miniature)" if summary.get("scale") in ("mini", "study") else ""),
        dataset_type=corpus,
        dataset_split=name,
        metric_type=metric,
        metric_name=f"{metric.upper()} in percent, 95 % interval{format_interval(summary.get('interval_percent'))}",
        metric_value=round(summary["rate_percent"], 2),
    )


def _metrics(facts: CardFacts) -> list[str]:
    """Return the metrics of the test sets, or of the corpus if nothing was scored."""
    scored = list(dict.fromkeys(summary["metric"] for summary in (facts.scores or {"sets": {}})["sets"].values()))
    if scored or not facts.corpus.get("profiles"):
        return scored or ["wer"]
    language = facts.corpus.get("scored_as") or facts.corpus.get("language") or ""
    return [find_profile(facts.corpus["profiles"][0]).metric(language)]


def _summary(facts: CardFacts) -> str:
    final = facts.weights == "final"
    mean = f", the mean of {', '.join(facts.last.checkpoints)}" if facts.last.checkpoints else ""
    weights = f"the final weights{mean}" if final else f"the checkpoint `{facts.weights}`, not the final weights"
    origin = f"{facts.size:,} parameters, from the run `{facts.last.run}`: {weights} (step {facts.last.step})."
    return f"{METHODS[facts.model_type]}\n{origin} {_layout(facts)}"


def _usage(facts: CardFacts) -> str:
    if facts.layout == ADAPTED:
        return ADAPTER_USAGE
    if facts.layout == PUBLISHED and facts.model_type != "arkasr":
        return ENGINES
    return usage(facts.model_type, facts.language)


def _layout(facts: CardFacts) -> str:
    if facts.model_type == "arkasr" or facts.layout in LIBRARIES:
        return LAYOUT_TEXTS[facts.layout]
    if facts.layout == PUBLISHED:
        return f"The files are in the layout in which {TITLES[facts.model_type]} was published, for vLLM and SGLang."
    return "The files are in the layout of transformers."


def _results(weights: str, scores: dict[str, Any] | None) -> str:
    if weights != "final":
        return "These weights are not scored. Only final weights are scored."
    if scores is None:
        return "This model is not scored."
    sets = shown_sets({"": scores})
    rows = []
    for each in sets:
        summary = scores["sets"][each.name]
        rate = format_number(summary.get("rate_percent")) + format_interval(summary.get("interval_percent"))
        rows.append([each.corpus or "-", each.name, str(summary["utterances"]), each.metric.upper()])
        rows[-1].append(rate + marker(scores, each.name))
    names = profile_names(scores["sets"][each.name] for each in sets)
    note = (
        "All errors divided by all reference words (WER), characters (CER) or both (MER), with a 95 % bootstrap "
        "interval over utterances. The interval does not include variation between seeds. "
        f"Scoring profile{'s' if len(names) > 1 else ''}: {', '.join(names)}."
    )
    lines = _doubts(scores)
    notes = ["Rates marked (!) are doubtful:", "\n".join(lines)] if lines else []
    table = markdown_table(["Corpus", "Test set", "Utterances", "Metric", "Percent [95 %]"], rows)
    return "\n\n".join([table, note, *notes])


def _doubts(scores: dict[str, Any]) -> list[str]:
    """Return the warnings of `arkasr score` as list items, without local paths."""
    lines = [f"- {public_text(str(clause), {})}." for clause in scores.get("warnings") or ()]
    for name, summary in scores["sets"].items():
        lines += [f"- {name}: {public_text(str(clause), {})}." for clause in doubts(summary)]
    return lines


def _data(stages: Sequence[Stage], corpus: dict[str, Any], synthetic: bool | None) -> str:
    """Return the sets used for training, validation and test, in hours."""
    sets, rows = corpus.get("sets") or {}, []
    used, tested = [stage.data for stage in stages], corpus["test_sets"]
    for name in dict.fromkeys([*used, corpus.get("dev", "dev"), *tested]):
        facts = sets.get(name, {})
        use = "training" if name in used else "test" if name in tested else "validation"
        cells = [format_number(facts.get("hours"), 2), str(facts.get("cuts", "-")), str(facts.get("speakers") or "-")]
        rows.append([name, use, *cells])
    lines = [f"Corpus `{corpus['name']}`{ORIGINS[synthetic]}."]
    lines.append(markdown_table(["Set", "Use", "Hours", "Utterances", "Speakers"], rows))
    if "td" in used:
        left_out = "Clips with an empty, cut or looping transcript, or above `teacher_data.max_error`, were left out"
        lines.append(f"The transcripts of `td` are the teacher's. {left_out}.")
    limits = {stage.run: stage.config["data"]["hours"] for stage in stages if stage.config["data"]["hours"]}
    lines += [f"`{run}` was trained on {hours:g} h drawn from its set." for run, hours in limits.items()]
    return "\n\n".join(lines)


def _training(stages: Sequence[Stage]) -> str:
    """Return one row per run: initial weights, method, data, steps and last measurements."""
    rows = []
    for stage in stages:
        config, distilled = stage.config, stage.config["objective"] == "opd"
        path = config["teacher"]["options"].get("path", "")
        teacher = config["teacher"]["name"] + (f" (`{path}`)" if path else "")
        seconds = None if stage.hours is None else 3600 * stage.hours
        dev = None if stage.dev_error is None else 100 * stage.dev_error
        start = stage.parent or ", ".join(stage.parts) or config["model"]["path"] or "random weights"
        rank = config["model"].get("lora", {}).get("rank")
        lora = f", LoRA of rank {rank}" if rank else ""
        method = (f"distillation{lora}", teacher, config["mapper"]["name"])
        method = method if distilled else (f"supervised{lora}", "-", "-")
        measured = [str(stage.step), format_number(seconds, 0), format_number(stage.loss, 3), format_number(dev)]
        rows.append([stage.run, start, *method, stage.data, *measured])
    names = ["Run", "Starts from", "Training", "Teacher", "Mapper", "Data", "Steps", "Audio seconds", "Loss", "Dev %"]
    note = (
        "Audio seconds are summed over all steps, so repeated clips count each time. The loss is the last logged one: "
        "cross-entropy for supervised training, a divergence from the teacher for distillation."
    )
    return f"{markdown_table(names, rows)}\n\n{note}"


def _commands(stages: Sequence[Stage]) -> str:
    recipes = dict.fromkeys(stage.recipe for stage in stages if stage.recipe)
    lines = ["# recipe", *recipes] if recipes else []
    lines += [stage.command or f"# {stage.run}: no command recorded" for stage in stages]
    note = (
        "`training_config.yaml` holds every setting of the last run. Paths of the training machine are removed: `...` "
        "replaces folders, `{expdir}` and `{datadir}` stand for the folders of the run."
    )
    return "```sh\n" + "\n".join(lines) + f"\n```\n\n{note}"


def _versions(stages: Sequence[Stage]) -> str:
    """Return commit and package versions. Runs that share them are grouped."""
    groups: dict[str, list[str]] = {}
    for stage in stages:
        packages = ", ".join(f"{name} {value}" for name, value in stage.versions.items()) or "versions not recorded"
        groups.setdefault(f"commit `{stage.commit or 'not recorded'}`, {packages}", []).append(stage.run)
    lines = [f"- {', '.join(runs)}: {environment}" for environment, runs in groups.items()]
    return "\n".join(lines) + "\n\nA `+` after a commit means that there were uncommitted changes."


def _limits(facts: CardFacts) -> str:
    language, data = ", ".join(facts.languages) or "the language of its corpus", facts.last.config["data"]
    tested = ", ".join(facts.scores["sets"]) if facts.scores else "nothing"
    return "\n".join([
        MINIATURE if facts.mini else PAPER_SCALE,
        f"- Language: {language} only. Other languages were neither trained nor tested.",
        f"- Clips longer than {data['max_clip_seconds']:g} s or shorter than {data['min_clip_seconds']:g} s were not "
        "used for training.",
        f"- Tested on {tested}. Not tested: anything else, such as other accents, noise, distant microphones, several "
        "speakers at once, music, streaming, and differences in accuracy between groups of speakers.",
    ])  # fmt: skip
