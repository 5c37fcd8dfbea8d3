"""The program and the tables of inputs and outputs in the README of an ONNX folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from arkasr.export.onnx.check import TOLERANCE, Differences
from arkasr.model.arkasr.prompt import prompt_parts
from arkasr.reporting.markdown import markdown_table

LAYOUT = """\
The files are ONNX graphs in float32 for onnxruntime and other engines, which need neither PyTorch nor `arkasr`."""
_PROGRAM = """\
You need the Python packages `onnxruntime`, `tokenizers` and `soundfile`. Run the program in this folder.

```python
import json
import numpy as np, onnxruntime, soundfile
from tokenizers import Tokenizer

features, encoder, decoder = (onnxruntime.InferenceSession(f"{n}.onnx") for n in ("features", "encoder", "decoder"))
config, settings = (json.load(open(f"{n}.json")) for n in ("config", "generation_config"))
tokenizer = Tokenizer.from_file("tokenizer.json")
samples, rate = soundfile.read("clip.wav", dtype="float32")  # one channel at 16 kHz
mel = features.run(None, {"waveform": np.pad(samples, (0, max(201 - len(samples), 0)))})[0]
frames = np.ones((1, mel.shape[2]), np.int64)
audio, counts = encoder.run(None, {"input_features": mel, "input_features_mask": frames})
before, after = (tokenizer.encode(text, add_special_tokens=False).ids for text in (
    BEFORE, AFTER))
ids, text, total = before + [config["audio_token_id"]] * counts[0] + after, [], 0
cache = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in decoder.get_inputs()[4:]}
while len(text) < settings["max_new_tokens"]:
    total += len(ids)
    logits, *present = decoder.run(None, {"input_ids": np.array([ids]), "audio_embeds": audio,
        "attention_mask": np.ones((1, total), np.int64), "logits_at": np.array([-1]), **cache})
    logits[..., settings["suppress_tokens"]] = -np.inf
    ids = [int(logits.argmax())]
    if ids[0] in np.ravel(settings["eos_token_id"]):
        break
    text, cache, audio = text + ids, dict(zip(cache, present)), audio[:, :0]
print(tokenizer.decode(text).strip())
```"""
_NOTES = """\
- `features.onnx` computes the log-mel features of one clip, of at least 201 samples.
- `encoder.onnx` is the encoder with its adapter. Pad the features of a batch with zeros, and set
  `input_features_mask` to 0 there. Row i of `audio_embeds` holds `audio_tokens[i]` embeddings, then padding.
- `decoder.onnx` reads the prompt first, with an empty cache (`past` is 0). `config.audio_token_id` marks where the
  rows of `audio_embeds` go, in their order. Afterwards it reads one token at a time, with the outputs `present` as
  cache and `audio_embeds` of length 0.
- The cache has keys and values of each decoder layer N, from 0.
- Pad the prompts of a batch on the left, and set `attention_mask` to 0 there. It covers the cache and the new tokens.
- `logits_at` lists the positions among the new tokens whose logits are returned. -1 is the last one.
- `generation_config.json` lists the ids that are never generated (`suppress_tokens`) and those that end a transcript.
"""


def program(instruction: str) -> str:
    """Return how the folder is used with onnxruntime.

    Args:
        instruction: Text of the model's prompt between the audio and the transcript.

    Returns:
        Markdown with a program.
    """
    before, after = prompt_parts(instruction)
    return _PROGRAM.replace("BEFORE", repr(before)).replace("AFTER", repr(after))


def files(folder: Path, found: Differences) -> str:
    """Return the names, shapes and types of inputs and outputs, as the files state them.

    Args:
        folder: The folder with the ONNX files.
        found: Differences between onnxruntime and PyTorch.

    Returns:
        Markdown.
    """
    import onnx
    import onnxruntime

    rows: dict[tuple[str, ...], None] = {}  # equal rows once: the caches of layers differ in their number only
    for path in sorted(folder.glob("*.onnx")):
        graph = onnx.load(path, load_external_data=False).graph
        for kind, values in (("input", graph.input), ("output", graph.output)):
            rows |= dict.fromkeys((f"`{path.name}`", kind, *_value(value)) for value in values)
    table = markdown_table(["File", "", "Name", "Shape", "Type"], list(rows))
    measured = ", ".join(f"{name} {value:.1e}" for name, value in vars(found).items())
    check = (
        f"At the export, onnxruntime {onnxruntime.__version__} and PyTorch were compared on two clips of noise. "
        f"Largest difference, as a share of the largest value (limit {TOLERANCE:g}): {measured}."
    )
    return f"{table}\n\n{_NOTES}\n{check}"


def _value(value: Any) -> tuple[str, str, str]:
    """Return name, shape and type. The number of a layer is written as N."""
    import onnx

    tensor = value.type.tensor_type
    shape = ", ".join(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim)
    name = re.sub(r"\.\d+\.", ".N.", value.name)
    return f"`{name}`", f"[{shape}]", onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
