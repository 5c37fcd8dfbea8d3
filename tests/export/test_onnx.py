"""ONNX exports: numbers and transcripts in onnxruntime equal those of PyTorch, and the folder explains itself."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from corpus_fixture import clips
from exported import ROOT, metadata_of, run_in_new_process
from lhotse import CutSet
from tiny import ARK_SIZES, student_tokenizer, waveform
from torch.nn.functional import pad

from arkasr import ArkasrProcessor
from arkasr.cli import main
from arkasr.config.load import read_config
from arkasr.errors import UserError
from arkasr.evaluation.hypotheses import transcribe
from arkasr.export.onnx import check, texts, write
from arkasr.export.onnx import folder as onnx_folder
from arkasr.export.target import RECORD
from arkasr.model.arkasr.configuration_arkasr import LEARNED
from arkasr.model.arkasr.prompt import INSTRUCTION
from arkasr.model.build import build_fresh
from arkasr.model.loading import load_speech_lm
from arkasr.model.weight_digests import digested_files

NAMES = ("features", "encoder", "decoder")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def run(trained):
    return trained / "base"


@pytest.fixture(scope="module")
def folder(run, datadir, tmp_path_factory):
    """The ONNX export of a run."""
    out = tmp_path_factory.mktemp("onnx") / "base"
    words = ["--runs", "base", "--onnx", "--license", "mit", "--outdir", str(out)]
    assert main(["export", "--expdir", str(run.parent), "--datadir", str(datadir), *words]) == 0
    return out


@pytest.fixture(scope="module")
def lm(run):
    return load_speech_lm(str(run / "final"))


@pytest.fixture(scope="module")
def sessions(folder):
    onnxruntime = pytest.importorskip("onnxruntime")
    return {name: onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in NAMES}


def program_of(folder):
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


@pytest.mark.slow
def test_program_of_the_readme_prints_the_transcripts_of_pytorch(folder, run, lm, datadir, monkeypatch):
    manifest = datadir / "test-a.jsonl.gz"
    expected = [row["hypothesis"] for row in transcribe(lm, clips(manifest), read_config(run / "config.yaml").decode)]
    paths = [cut.recording.sources[0].source for cut in CutSet.from_file(manifest)]
    monkeypatch.chdir(folder)
    found = []
    for path in (os.path.abspath(path) for path in paths):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(program_of(folder).replace("clip.wav", path), {})
        found.append(printed.getvalue().removesuffix("\n"))
    assert found == expected and len(set(found)) > 1


@pytest.mark.slow
def test_program_of_the_readme_needs_neither_pytorch_nor_arkasr(folder, datadir):
    path = next(iter(CutSet.from_file(datadir / "test-a.jsonl.gz"))).recording.sources[0].source
    absent = "import sys\nsys.modules |= dict.fromkeys(('torch', 'transformers', 'arkasr'))\n"
    run_in_new_process(absent + program_of(folder).replace("clip.wav", os.path.abspath(path)), folder)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [201, 500, 16000, 24999])
def test_features_equal_those_of_the_processor(sessions, lm, samples):
    clip = waveform(samples, 3)
    found = sessions["features"].run(None, {"waveform": clip.numpy()})[0]
    expected = ArkasrProcessor.from_config(lm.hf.config, lm.tokenizer)(clip)["input_features"]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=3e-4)  # logarithms down to 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(160,), (16000,), (300, 22000, 9000)], ids=str)
@torch.no_grad()
def test_audio_embeddings_equal_those_of_pytorch(sessions, lm, sizes):
    mel, mask = lm.features([waveform(n, i) for i, n in enumerate(sizes)])
    rows, counts = sessions["encoder"].run(None, {"input_features": mel.numpy(), "input_features_mask": mask.numpy()})
    expected = lm.hf.model.get_audio_features(mel, mask).pooler_output
    found = torch.cat([torch.from_numpy(row[:n]) for row, n in zip(rows, counts, strict=True)])
    assert counts.tolist() == lm.count_audio_tokens(mask.sum(-1).tolist())
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.slow
@torch.no_grad()
def test_logits_of_prompts_and_cached_steps_equal_those_of_generate(sessions, lm, folder):
    """Two clips of different lengths, so that one prompt is padded on the left."""
    inputs = ArkasrProcessor.from_config(lm.hf.config, lm.tokenizer)([waveform(9000, 1), waveform(20000, 2)])
    prompt = lm.hf(**inputs).logits
    steps = 5
    generated = lm.hf.generate(
        **inputs, max_new_tokens=steps, min_new_tokens=steps, output_logits=True, return_dict_in_generate=True
    )
    new = generated.sequences[:, inputs["input_ids"].shape[1] :]
    encoded = {name: inputs[name].numpy() for name in ("input_features", "input_features_mask")}
    audio, ids, mask = sessions["encoder"].run(None, encoded)[0], inputs["input_ids"], inputs["attention_mask"]
    layers = lm.hf.config.text_config.num_hidden_layers
    names = write.cache_names("past_key_values", layers)
    shapes = {each.name: each.shape for each in sessions["decoder"].get_inputs()}
    cache = {name: np.zeros((2, shapes[name][1], 0, shapes[name][3]), np.float32) for name in names}
    for step in range(steps):
        at = np.arange(ids.shape[1]) if step == 0 else np.array([-1])
        feed = {"input_ids": ids.numpy(), "audio_embeds": audio, "attention_mask": mask.numpy(), "logits_at": at}
        logits, *present = sessions["decoder"].run(None, feed | cache)
        if step == 0:
            torch.testing.assert_close(torch.from_numpy(logits)[mask.bool()], prompt[mask.bool()], **CLOSE)
        torch.testing.assert_close(torch.from_numpy(logits[:, -1]), generated.logits[step], **CLOSE)
        cache, ids, mask, audio = (
            dict(zip(names, present)),
            new[:, step, None],
            pad(mask, (0, 1), value=1),
            audio[:, :0],
        )


@pytest.mark.slow
def test_readme_lists_inputs_and_outputs_as_onnxruntime_does(folder, sessions):
    text = (folder / "README.md").read_text()
    for name, session in sessions.items():
        for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
            for value in values:
                shape = ", ".join(str(dim) for dim in value.shape)
                dtype = {"tensor(float)": "float", "tensor(int64)": "int64"}[value.type]
                shown = re.sub(r"\.\d+\.", ".N.", value.name)
                assert f"| `{name}.onnx` | {kind} | `{shown}` | [{shape}] | {dtype} |" in text
    assert metadata_of(folder) | {"license": "mit", "library_name": "onnx"} == metadata_of(folder)


@pytest.mark.slow
def test_folder_has_tokenizer_processor_record_and_digests(folder):
    present = {path.name for path in folder.iterdir()}
    weights = {f"{name}.onnx" for name in NAMES} | {"encoder.onnx.data", "decoder.onnx.data"}
    assert weights | {"tokenizer.json", "processor_config.json", "config.json", "generation_config.json"} < present
    record = json.loads((folder / "training_run.json").read_text())
    assert record["layout"] == "onnx" and set(record["files"]) == present
    assert weights < {path.name for path in digested_files(folder)}


@pytest.mark.slow
def test_export_of_a_folder_replaces_an_earlier_export(run, folder, tmp_path, capsys, monkeypatch):
    """torch.onnx is left out, which takes most of the time: the files are those of the run, and are compared."""

    def write_graphs(lm, out):
        for path in folder.glob("*.onnx*"):
            shutil.copy(path, out)

    monkeypatch.setattr(onnx_folder, "write_graphs", write_graphs)
    out = tmp_path / "model"
    shutil.copytree(folder, out)
    (out / "decoder.onnx").write_bytes(b"")
    assert main(["export", "--onnx", "--model", str(run / "final"), "--outdir", str(out)]) == 0
    assert "onnxruntime and PyTorch differ by at most" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {p.name for p in folder.iterdir()} - {"training_config.yaml"}
    assert (out / "README.md").read_text().startswith("---\n") and program_of(out) == program_of(folder)
    assert json.loads((out / "training_run.json").read_text())["model"] == "final"


@pytest.mark.slow
@torch.no_grad()
def test_encoder_with_learned_positions_is_exported(tmp_path):
    audio = ARK_SIZES["audio"] | {"positions": LEARNED, "max_position_embeddings": 100, "num_hidden_layers": 1}
    lm = build_fresh("arkasr", ARK_SIZES | {"audio": audio}, student_tokenizer()).eval()
    write.write_encoder(lm.hf, tmp_path / "encoder.onnx")
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "encoder.onnx")
    mel, mask = lm.features([waveform(n, i) for i, n in enumerate((16000, 32000))])
    rows, counts = session.run(None, {"input_features": mel.numpy(), "input_features_mask": mask.numpy()})
    found = torch.cat([torch.from_numpy(row[:n]) for row, n in zip(rows, counts, strict=True)])
    torch.testing.assert_close(found, lm.hf.model.get_audio_features(mel, mask).pooler_output, **CLOSE)


@pytest.mark.slow
def test_other_numbers_than_those_of_pytorch_are_refused(folder, run):
    changed = load_speech_lm(str(run / "final"))
    with torch.no_grad():
        changed.hf.model.audio_tower.norm.weight[0] += 1
    with pytest.raises(UserError, match=r"onnxruntime and PyTorch differ by .* in encoder, more than 0.001"):
        check.compare(changed, folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "m", "--outdir", "o"], "--model m: --onnx is missing; add it, or name runs with --expdir"),
        (["--model", "m", "--onnx"], "--model m: --outdir is missing"),
        (["--model", "m", "--onnx", "--outdir", "o", "--runs", "a"], "--runs belongs to the runs of an experiment"),
        (["--model", "m", "--onnx", "--outdir", "o", "--checkpoint", "best"], "--checkpoint belongs to the runs"),
        (["--runs", "a", "--onnx"], "--expdir or --datadir is missing; name both, or name a folder with --model"),
        (["--expdir", "e", "--datadir", "d", "--onnx"], "--runs is empty"),
        (["--expdir", "e", "--datadir", "d", "--runs", "a", "--onnx", "--adapter"], "--adapter and --onnx exclude"),
    ],
)
def test_export_onnx_refuses_wrong_options(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_export_onnx_refuses_other_models(trained, tmp_path, capsys):
    teacher = trained / "teacher" / "final"
    assert main(["export", "--onnx", "--model", str(teacher), "--outdir", str(tmp_path / "out")]) == 2
    assert f"{teacher}: a model of type qwen3_asr has no ONNX export" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_export_onnx_does_not_replace_its_model(trained, tmp_path, capsys):
    """An earlier export may be replaced, but not by itself."""
    model = tmp_path / "export"
    shutil.copytree(trained / "base" / "final", model)
    (model / RECORD).write_text(json.dumps({"files": [RECORD, *(path.name for path in model.iterdir())]}))
    assert main(["export", "--onnx", "--model", str(model), "--outdir", f"{tmp_path}/./export/"]) == 2
    assert "is the folder of the model, which would be lost" in capsys.readouterr().err
    assert (model / "model.safetensors").is_file()


def test_export_onnx_names_the_missing_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(write, "find_spec", lambda name: None if name == "onnxscript" else object())
    assert main(["export", "--onnx", "--model", "m", "--outdir", str(tmp_path / "o")]) == 2
    assert "needs the package onnxscript, which is not installed; pip install 'arkasr[onnx]'" in capsys.readouterr().err


def test_page_has_the_program_of_the_readme():
    page = (ROOT / "docs" / "other_engines.md").read_text(encoding="utf-8")
    assert texts.program(INSTRUCTION).split("```python\n")[1] in page


@pytest.mark.slow
def test_benchmark_compares_tokens_and_prints_one_row_per_engine(folder, run, datadir, capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    paths = [cut.recording.sources[0].source for cut in CutSet.from_file(datadir / "test-a.jsonl.gz")]
    monkeypatch.setattr(importlib.import_module("onnx_speed"), "MOST_TOKENS", 6)
    importlib.import_module("onnx_speed").main(["--model", str(run / "final"), "--onnx", str(folder), *paths])
    printed = capsys.readouterr().out
    assert f"equal tokens: {len(paths)} of {len(paths)}" in printed
    assert re.findall(r"^\| (\w+) \| \d", printed, re.M) == ["generate", "onnxruntime", "arkasr"]
