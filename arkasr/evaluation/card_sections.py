"""The parts of a model card that say what was measured and done: data, results, training, commands, versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arkasr.evaluation.lineage import Stage
from arkasr.evaluation.tables import interval, markdown, number

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
