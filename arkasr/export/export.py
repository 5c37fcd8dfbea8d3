"""Write a trained run as a folder ready for the Hugging Face Hub: weights, processor, settings and a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, WhisperFeatureExtractor
from transformers.utils import logging as transformers_logging

from arkasr import __version__
from arkasr.config.schema import Config
from arkasr.config.yaml_io import to_yaml
from arkasr.corpora.download import is_synthetic
from arkasr.errors import UserError
from arkasr.evaluation import results_io
from arkasr.export import model_card, provenance
from arkasr.export.select_weights import FINAL, WeightSource, find_source
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.utils.console import log

RECORD = "training_run.json"  # stands in every export, and by it one is known


def check_target(folder: Path) -> None:
    """Raise UserError where a folder holds anything that an earlier export has not written."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder with --outdir")
    try:
        written = set(json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        written = set()
    strange = sorted(path.name for path in folder.iterdir() if path.name not in written)
    if strange:
        raise UserError(f"{folder}: holds {strange[0]}, which no export wrote: move it away, or give another --outdir")


def _publish_processor(folder: Path, num_mel: int, dtype: str) -> None:
    """Write the processor's settings as the authors' code reads them, as far as these are known."""
    WhisperFeatureExtractor(feature_size=num_mel, return_attention_mask=False).save_pretrained(folder)
    path = folder / "processor_config.json"
    ours = json.loads(path.read_text(encoding="utf-8"))
    theirs = {key: ours[key] for key in ("processor_class", "merge_factor", "audio_token", "instruction")}
    theirs |= {"audio_dtype": dtype, "tokenizer_config": {"padding_side": "left", "model_max_length": 8192}}
    path.write_text(json.dumps(theirs, indent=2) + "\n", encoding="utf-8")


def write_model(lm: SpeechLM, folder: Path, config: Config, published: bool) -> None:
    """Write weights, configuration, tokenizer, processor, and how to generate as `arkasr decode` does."""
    lm.hf.generation_config = GenerationConfig(
        eos_token_id=lm.stop_ids,
        pad_token_id=lm.tokenizer.pad_token_id,
        max_new_tokens=config.decode.max_new_tokens,
        do_sample=False,
    )  # the blocked ids are written by `save`
    lm.save(folder, save_original_format=published)
    if published:
        _publish_processor(folder, lm.num_mel, config.model.dtype)


def _write(source: WeightSource, expdir: str, datadir: str, target: Path, published: bool, terms: str) -> None:
    """Write an export aside and put it in the place of the one before."""
    past = provenance.trace(expdir, datadir, source.run, source.step)
    scores = results_io.read_scores(expdir, source.run) if source.name == FINAL else None
    aside, old = (target.with_name(f"{word}-{target.name}") for word in ("writing", "replaced"))
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    lm = source.load()
    write_model(lm, aside, source.config, published)
    (aside / "training_config.yaml").write_text(to_yaml(past[-1].config), encoding="utf-8")
    size = sum(weight.numel() for weight in lm.hf.parameters())
    corpus = results_io.read_corpus_facts(datadir)
    card = model_card.Card(past, corpus, source.name, size, published, scores, terms, _spoken(corpus))
    (aside / "README.md").write_text(model_card.page(card), encoding="utf-8")
    _write_record(aside, source, past, published)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    aside.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _spoken(corpus: dict[str, Any]) -> bool | None:
    folder = Path(corpus.get("corpus_dir", ""))
    if corpus.get("scale") == "paper":
        return False
    return is_synthetic(folder) if corpus.get("corpus_dir") and folder.is_dir() else None


def _write_record(folder: Path, source: WeightSource, past: Sequence[provenance.Stage], published: bool) -> None:
    facts: dict[str, Any] = {
        "exported_by": f"arkasr {__version__}",
        "layout": "published" if published else "native",
        "checkpoint": source.name,
        "runs": [{key: value for key, value in asdict(stage).items() if key != "config"} for stage in past],
        "files": sorted([RECORD, *(path.name for path in folder.iterdir())]),
    }
    (folder / RECORD).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def export(
    expdir: str,
    datadir: str,
    runs: Sequence[str],
    checkpoint: str = FINAL,
    published: bool = False,
    outdir: str = "",
    terms: str = "",
) -> None:
    """Write each run to `<expdir>/<run>/export`, or one run to `outdir`; an earlier export there is replaced.

    checkpoint: see `find_source`. published: the published layout (flat config.json, `audio_encoder.*` keys). terms:
    the licence of the weights as the Hub writes it; empty: the card says that none is stated.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if not runs:
        raise UserError("no run to export: name some, such as --runs 'base_opd'")
    if outdir and len(runs) > 1:
        raise UserError(f"--outdir {outdir} is one folder for {len(runs)} runs: name one run")
    targets = {run: Path(outdir).resolve() if outdir else Path(expdir) / run / "export" for run in runs}
    sources = {run: find_source(expdir, run, checkpoint) for run in runs}
    for target in targets.values():
        check_target(target)
    for run, source in sources.items():
        log(f"export {run}: {source.folder} (step {source.step})")
        _write(source, expdir, datadir, targets[run], published, terms)
        log(f"{targets[run]}: written")
