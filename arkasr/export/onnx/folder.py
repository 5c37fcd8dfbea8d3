"""Folders of ONNX files: the export of a model without a run, and what such a folder holds beside its README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers.utils import logging as transformers_logging

from arkasr import __version__
from arkasr.config.schema import DecodeConfig
from arkasr.errors import UserError
from arkasr.export.card_facts import ONNX
from arkasr.export.card_texts import METHODS
from arkasr.export.onnx import texts
from arkasr.export.onnx.check import compare
from arkasr.export.onnx.write import require_onnx, write_graphs
from arkasr.export.target import check_target, replacing, write_record
from arkasr.model.arkasr.processing_arkasr import ArkasrProcessor
from arkasr.model.loading import load_speech_lm
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.model.weight_digests import write_digests
from arkasr.utils.console import log
from arkasr.utils.hub import is_hub_id


def export_folder(model: str, outdir: str, terms: str = "") -> None:
    """Write the ONNX files of a model that is no run of an experiment. An earlier export is replaced.

    Args:
        model: Folder or Hub id of Ark-ASR (see `load_speech_lm`).
        outdir: Folder to write to.
        terms: Licence of the weights as a Hub identifier, such as `cc-by-4.0`. If empty, the card states none.

    Raises:
        UserError: A package is not installed, the model cannot be loaded or exported, or the target folder is that of
            the model or holds other files.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    require_onnx()
    target = Path(outdir).resolve()
    if not is_hub_id(model) and target == Path(model).resolve():
        raise UserError(f"--outdir {outdir}: is the folder of the model, which would be lost; use another --outdir")
    check_target(target)
    lm = load_speech_lm(model)
    settings: Any = lm.hf.generation_config
    name = model if is_hub_id(model) else Path(model).resolve().name
    with replacing(target, f"exporting {name}") as folder:
        sections = write_files(lm, folder, model, settings.max_new_tokens or DecodeConfig().max_new_tokens)
        _card(lm, name, terms, sections).save(folder / "README.md")
        write_record(folder, {"exported_by": f"arkasr {__version__}", "layout": ONNX, "model": name})
    log(f"{target}: written")


def write_files(lm: SpeechLM, folder: Path, name: str, max_new_tokens: int) -> dict[str, str]:
    """Write the ONNX files with configuration, tokenizer, processor and generation settings, and check them.

    Args:
        lm: The model, on the CPU. Its weights become float32.
        folder: Existing folder to write to.
        name: Folder or Hub id of the model, for messages.
        max_new_tokens: Maximum number of tokens per transcript, for generation_config.json.

    Returns:
        Sections of the README by title.

    Raises:
        UserError: The model is not Ark-ASR, cannot be exported, or the files give other numbers than PyTorch.
    """
    config: Any = lm.hf.config
    if config.model_type != "arkasr":
        raise UserError(f"{name}: a model of type {config.model_type} has no ONNX export; use --onnx with type arkasr")
    lm.hf.float()
    config.dtype = "float32"
    config.save_pretrained(folder)
    lm.set_generation(max_new_tokens)
    lm.hf.generation_config.save_pretrained(folder)
    ArkasrProcessor.from_config(config, lm.tokenizer).save_pretrained(folder)
    try:
        write_graphs(lm, folder)
        found = compare(lm, folder)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    write_digests(folder)
    largest = max(vars(found).values())
    log(f"{name}: onnxruntime and PyTorch differ by at most {largest:.1e} of the largest value")
    return {"How to use it": texts.program(config.instruction), "Files": texts.files(folder, found)}


def _card(lm: SpeechLM, name: str, terms: str, sections: dict[str, str]) -> ModelCard:
    data = ModelCardData(
        license=terms or None,
        library_name="onnx",
        pipeline_tag="automatic-speech-recognition",
        tags=["arkasr"],
        base_model=name if is_hub_id(name) else None,
    )
    size = sum(weight.numel() for weight in lm.hf.parameters())
    head = f"# {name}, ONNX\n\n{METHODS['arkasr']}\n{size:,} parameters. {texts.LAYOUT}"
    body = "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{head}\n{body}")
