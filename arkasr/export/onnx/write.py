"""Write the ONNX files of Ark-ASR with torch.onnx: `features.onnx`, `encoder.onnx` and `decoder.onnx`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
Example = tuple[Tensor | list[Tensor], Sequence[str | None]]  # example of an argument, and names of its dynamic axes
Outputs = Mapping[str, Sequence[str | None]]  # names of the dynamic axes of each output
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
    clip: dict[str, Example] = {"waveform": (torch.zeros(8000), ["samples"])}
    features: Outputs = {"input_features": [None, None, "frames"]}
    _write(folder / "features.onnx", FeaturesGraph(lm.num_mel), clip, features, weights=False)
    write_encoder(lm.hf, folder / "encoder.onnx")
    _write_decoder(lm.hf, folder / "decoder.onnx")


@torch.no_grad()
def write_encoder(hf: Any, path: Path) -> None:
    """Write encoder and adapter.

    Args:
        hf: An `ArkasrForConditionalGeneration` in float32, on the CPU.
        path: The file.

    Raises:
        UserError: torch.onnx cannot export the model.
    """
    mel = torch.zeros(CLIPS, hf.config.audio_config.num_mel_bins, 60)
    inputs: dict[str, Example] = {
        "input_features": (mel, [BATCH, None, "frames"]),
        "input_features_mask": (torch.ones(CLIPS, 60, dtype=torch.long), [BATCH, "frames"]),
    }
    outputs: Outputs = {"audio_embeds": [BATCH, "audio", None], "audio_tokens": [BATCH]}
    _write(path, EncoderGraph(hf), inputs, outputs)


def _write_decoder(hf: Any, path: Path) -> None:
    text = hf.config.text_config
    width, heads, layers = text.hidden_size, text.num_key_value_heads, text.num_hidden_layers
    size = getattr(text, "head_dim", None) or width // text.num_attention_heads
    past = [torch.zeros(CLIPS, heads, 3, size) for _ in range(2 * layers)]
    inputs: dict[str, Example] = {
        "input_ids": (torch.full((CLIPS, 5), hf.config.audio_token_id), [BATCH, "tokens"]),
        "audio_embeds": (torch.zeros(CLIPS, 7, width), [BATCH, "audio", None]),
        "attention_mask": (torch.ones(CLIPS, 8, dtype=torch.long), [BATCH, "past_and_tokens"]),
        "logits_at": (torch.tensor([0, 1]), ["positions"]),
        "past_key_values": (past, [BATCH, None, "past", None]),
    }
    outputs: Outputs = dict.fromkeys(cache_names("present", layers), (BATCH, None, "past_and_tokens", None))
    _write(path, DecoderGraph(hf), inputs, {"logits": (BATCH, "positions", None), **outputs})


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
    inputs: Mapping[str, Example],
    outputs: Outputs,
    weights: bool = True,
) -> None:
    """Write one file.

    `inputs` holds an example and the names of the dynamic axes of each argument, `outputs` those of each output, which
    the exporter would name by formulas.
    """
    names, shapes = [], []
    for name, (example, axes) in inputs.items():
        shape = {axis: name for axis, name in enumerate(axes) if name}
        is_list = isinstance(example, list)
        names += cache_names(name, len(example) // 2) if is_list else [name]
        shapes.append([shape] * len(example) if is_list else shape)
    with _explained(path.name):
        program: Any = torch.onnx.export(
            module.eval(),
            tuple(example for example, _ in inputs.values()),
            input_names=names,
            output_names=list(outputs),
            dynamic_shapes=tuple(shapes),
            opset_version=OPSET,
            verbose=False,
        )
        for value, axes in zip(program.model.graph.outputs, outputs.values(), strict=True):
            value.shape = type(value.shape)(name or size for name, size in zip(axes, value.shape, strict=True))
        program.save(path, external_data=weights)


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
