"""`arkasr export`: write a trained run as a folder for the Hugging Face Hub.

The folder contains weights, processor, configuration, generation settings and a model card.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import WhisperFeatureExtractor
from transformers.utils import logging as transformers_logging

from arkasr import __version__
from arkasr.config.schema import Config
from arkasr.config.yaml_io import to_yaml
from arkasr.corpora.download import is_synthetic
from arkasr.errors import UserError
from arkasr.evaluation import results_io, run_records
from arkasr.export import model_card, provenance
from arkasr.export.card_facts import ADAPTED, NATIVE, ONNX, PUBLISHED, CardFacts
from arkasr.export.onnx.folder import write_files
from arkasr.export.onnx.write import require_onnx
from arkasr.export.select_weights import FINAL, WeightSource, find_source
from arkasr.export.target import check_target, replacing, write_record
from arkasr.model.speech_lm.arkasr import ArkSpeechLM
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.utils.console import log
from arkasr.utils.files import sampled_digest


def export(
    expdir: str,
    datadir: str,
    runs: Sequence[str],
    checkpoint: str = FINAL,
    published: bool = False,
    outdir: str = "",
    terms: str = "",
    adapter: bool = False,
    onnx: bool = False,
) -> None:
    """Write each run to `<expdir>/<run>/export`, or one run to `outdir`. An earlier export is replaced.

    Args:
        expdir: Experiment directory.
        datadir: Data directory of the runs.
        runs: Names of the runs.
        checkpoint: Which weights to export (see `find_source`).
        published: True for the layout in which the authors of the architecture published it, for other engines.
        outdir: Folder to write to, for a single run.
        terms: Licence of the weights as a Hub identifier, such as `cc-by-4.0`. If empty, the card states none.
        adapter: True for the LoRA adapter alone, in PEFT's layout, instead of the merged model.
        onnx: True for ONNX files.

    Raises:
        UserError: Several layouts are set, a run has no adapter, a run or its weights do not exist, are damaged, or
            cannot be written in the layout, the target folder holds other files, or another process writes to it.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    layout = _layout(published, adapter, onnx)
    if not runs:
        raise UserError("--runs is empty; name the runs to export, such as --runs 'base_opd'")
    if outdir and len(runs) > 1:
        raise UserError(f"--outdir {outdir}: cannot hold {len(runs)} runs; name one run")
    targets = {run: Path(outdir).resolve() if outdir else Path(expdir) / run / "export" for run in runs}
    sources = {run: find_source(expdir, run, checkpoint) for run in runs}
    for target in targets.values():
        check_target(target)
    for run, source in sources.items():
        log(f"export {run}: {source.folder} (step {source.step})")
        _write(source, expdir, datadir, targets[run], layout, terms)
        log(f"{targets[run]}: written")


def _layout(published: bool, adapter: bool, onnx: bool) -> str:
    chosen = {PUBLISHED: published, ADAPTED: adapter, ONNX: onnx}
    layouts = [layout for layout, is_set in chosen.items() if is_set]
    if len(layouts) > 1:
        names = " and ".join(f"--{layout}" for layout in layouts)
        raise UserError(f"{names} exclude each other; export twice, with two values of --outdir")
    if onnx:
        require_onnx()
    return layouts[0] if layouts else NATIVE


def write_model(lm: SpeechLM, folder: Path, config: Config, published: bool) -> None:
    """Write weights, configuration, tokenizer, processor and the generation settings of `arkasr decode`.

    Args:
        lm: The model.
        folder: Existing folder to write to.
        config: Configuration of the run.
        published: True for the layout of the published model.
    """
    lm.set_generation(config.decode.max_new_tokens)
    lm.save(folder, save_original_format=published)
    if published and isinstance(lm, ArkSpeechLM):
        _publish_processor(folder, lm.num_mel, config.model.dtype)


def _publish_processor(folder: Path, num_mel: int, dtype: str) -> None:
    """Rewrite the processor files with the keys of the published model, as far as they are known."""
    WhisperFeatureExtractor(feature_size=num_mel, return_attention_mask=False).save_pretrained(folder)
    path = folder / "processor_config.json"
    native = json.loads(path.read_text(encoding="utf-8"))
    settings = {key: native[key] for key in ("processor_class", "merge_factor", "audio_token", "instruction")}
    settings |= {"audio_dtype": dtype, "tokenizer_config": {"padding_side": "left", "model_max_length": 8192}}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _write(source: WeightSource, expdir: str, datadir: str, target: Path, layout: str, terms: str) -> None:
    """Write an export to a temporary folder, then replace the earlier export with it."""
    with replacing(target, f"exporting {source.run}") as temporary:
        _fill(temporary, source, expdir, datadir, layout, terms)


def _fill(folder: Path, source: WeightSource, expdir: str, datadir: str, layout: str, terms: str) -> None:
    stages = provenance.trace(expdir, datadir, source.run, source.step)
    scores, corpus = _scores(source, expdir), results_io.read_corpus_facts(datadir)
    lm, sections = source.load(), dict[str, str]()
    if layout == ADAPTED:
        source.write_adapter(folder, lm)
    elif layout == ONNX:
        sections = write_files(lm, folder, str(source.folder), source.config.decode.max_new_tokens)
    else:
        _write_whole(lm, folder, source, layout == PUBLISHED)
    (folder / "training_config.yaml").write_text(to_yaml(stages[-1].config), encoding="utf-8")
    size = sum(weight.numel() for weight in lm.hf.parameters())
    facts = CardFacts(stages, corpus, source.name, size, layout, scores, terms, _is_synthetic(corpus), sections)
    model_card.build_card(facts).save(folder / "README.md")
    _write_record(folder, source, stages, layout)


def _write_whole(lm: SpeechLM, folder: Path, source: WeightSource, published: bool) -> None:
    try:
        write_model(lm, folder, source.config, published)
    except UserError as error:
        raise UserError(f"{source.folder}: {error}{', without --published' if published else ''}") from error


def _scores(source: WeightSource, expdir: str) -> dict[str, Any] | None:
    """Return scores.json with the test sets that were decoded with these weights, None if there is none."""
    scores = run_records.read_scores(expdir, source.run) if source.name == FINAL else None
    if not scores:
        return None
    weights, where = sampled_digest(source.folder), f"{Path(expdir) / source.run}/scores.json"
    others = [name for name, entry in scores["sets"].items() if entry.get("weights") not in ("", None, weights)]
    if others:
        log(f"warning: {where}: {', '.join(others)}: of other weights than {source.folder}, left out")
    sets = {name: entry for name, entry in scores["sets"].items() if name not in others}
    return scores | {"sets": sets} if sets else None


def _is_synthetic(corpus: dict[str, Any]) -> bool | None:
    """Return whether stage 0 synthesised the corpus, or None if its folder or marker cannot be read."""
    folder = Path(corpus.get("corpus_dir") or "")
    if corpus.get("scale") == "paper":
        return False
    if not corpus.get("corpus_dir") or not folder.is_dir():
        return None
    try:
        return is_synthetic(folder)
    except UserError as error:
        log(f"warning: {error}")
        return None


def _write_record(folder: Path, source: WeightSource, stages: Sequence[provenance.Stage], layout: str) -> None:
    runs = [{key: value for key, value in asdict(stage).items() if key != "config"} for stage in stages]
    facts: dict[str, Any] = {
        "exported_by": f"arkasr {__version__}",
        "layout": layout,
        "checkpoint": source.name,
        "runs": runs,
    }
    write_record(folder, facts)
