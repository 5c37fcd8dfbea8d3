"""Write the ONNX files of Ark-ASR with torch.onnx: `features.onnx`, `encoder.onnx` and `decoder.onnx`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from arkasr.errors import UserError
from arkasr.export.onnx.graphs import DecoderGraph, EncoderGraph, FeaturesGraph
from arkasr.model.speech_lm.auto import SpeechLM

OPSET = 20
NEEDS = ("onnx", "onnxscript", "onnxruntime")
BATCH, CLIPS = "batch", 2  # examples have sizes above 1, because tracing fixes sizes of 0 and 1


def require_onnx() -> None:
    """Check that the packages of the extra `onnx` are installed.

    Raises:
        UserError: One is not.
    """
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        raise UserError(f"--onnx: needs the package {missing[0]}, which is not installed; pip install 'arkasr[onnx]'")


@torch.no_grad()
def write_graphs(lm: SpeechLM, folder: Path) -> None:
    """Write the files. Weights lie beside them in `encoder.onnx.data` and `decoder.onnx.data`.

    Args:
        lm: An Ark-ASR model in float32, on the CPU.
        folder: Existing folder to write to.

    Raises:
        UserError: torch.onnx cannot export the model, or see `DecoderGraph`.
    """
    hf: Any = lm.hf
    width, text = hf.config.text_config.hidden_size, hf.config.text_config
    heads, size = text.num_key_value_heads, getattr(text, "head_dim", None) or width // text.num_attention_heads
    mel, frames = torch.zeros(CLIPS, lm.num_mel, 60), torch.ones(CLIPS, 60, dtype=torch.long)
    _write(folder / "features.onnx", FeaturesGraph(lm.num_mel), {"waveform": (torch.zeros(8000), ["samples"])},
           ["input_features"], weights=False)  # fmt: skip
    _write(
        folder / "encoder.onnx",
        EncoderGraph(hf),
        {
            "input_features": (mel, [BATCH, None, "frames"]),
            "input_features_mask": (frames, [BATCH, "frames"]),
        },
        ["audio_embeds", "audio_tokens"],
    )
    past = [torch.zeros(CLIPS, heads, 3, size) for _ in range(2 * text.num_hidden_layers)]
    ids = torch.full((CLIPS, 5), hf.config.audio_token_id)
    _write(
        folder / "decoder.onnx",
        DecoderGraph(hf),
        {
            "input_ids": (ids, [BATCH, "tokens"]),
            "audio_embeds": (torch.zeros(CLIPS, 7, width), [BATCH, "audio", None]),
            "attention_mask": (torch.ones(CLIPS, 8, dtype=torch.long), [BATCH, "past_and_tokens"]),
            "logits_at": (torch.tensor([0, 1]), ["positions"]),
            "past_key_values": (past, [BATCH, None, "past", None]),
        },
        ["logits", *cache_names("present", text.num_hidden_layers)],
    )


def cache_names(prefix: str, layers: int) -> list[str]:
    """Return the names of keys and values.

    Args:
        prefix: `past_key_values` or `present`.
        layers: Number of decoder layers L.

    Returns:
        2 L names such as `present.0.key`, in the order of inputs and outputs.
    """
    return [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def _write(
    path: Path,
    module: nn.Module,
    inputs: dict[str, tuple[Tensor | list[Tensor], Sequence[str | None]]],
    outputs: list[str],
    weights: bool = True,
) -> None:
    """Write one file. `inputs` holds an example and the names of the dynamic axes of each argument."""
    names, shapes = [], []
    for name, (example, axes) in inputs.items():
        shape = {axis: name for axis, name in enumerate(axes) if name}
        is_list = isinstance(example, list)
        names += cache_names(name, len(example) // 2) if is_list else [name]
        shapes.append([shape] * len(example) if is_list else shape)
    with _explained(path.name):
        torch.onnx.export(
            module.eval(),
            tuple(example for example, _ in inputs.values()),
            path,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=tuple(shapes),
            opset_version=OPSET,
            external_data=weights,
            verbose=False,
        )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Silence the exporter, and name the file in its errors."""
    from torch.onnx import errors

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except errors.OnnxExporterError as error:
        cause = " ".join(str(error).split())[:300]
        raise UserError(f"{name}: torch.onnx cannot export this model: {cause}; use the model in PyTorch") from error
    finally:
        logger.setLevel(level)
