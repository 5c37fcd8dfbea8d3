"""Exports load in a new process and transcribe as before. They hold nothing private."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from corpus_fixture import clips
from exported import ROOT, metadata_of, run_in_new_process
from lhotse import CutSet
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from arkasr.cli import main
from arkasr.config.load import read_config
from arkasr.errors import UserError
from arkasr.evaluation.hypotheses import transcribe
from arkasr.export.export import export
from arkasr.model.ctc_head import FILE, TOKENIZER
from arkasr.model.loading import load_speech_lm
from arkasr.training.train import train
from arkasr.utils.files import LOCK

ALL_CLIPS = """
import json, soundfile
from arkasr import ArkasrProcessor
from transformers import AutoModelForCausalLM, AutoProcessor
processor, model = AutoProcessor.from_pretrained("."), AutoModelForCausalLM.from_pretrained(".")
texts = []
for path in {paths}:
    inputs = processor(soundfile.read(path, dtype="float32")[0], sampling_rate=16000)
    ids = model.generate(**inputs)[:, inputs["input_ids"].shape[1]:]
    texts += [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]
print(json.dumps([texts, type(model).__name__, type(processor).__name__]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("published", [False, True])
def test_export_loads_in_new_process_and_transcribes_as_before(expdir, datadir, published):
    export(str(expdir), str(datadir), ["base"], published=published)
    folder, config = expdir / "base" / "export", read_config(expdir / "base" / "config.yaml")
    manifests = [datadir / f"{name}.jsonl.gz" for name in ("test-a", "dev")]
    rows = [
        row
        for path in manifests
        for row in transcribe(load_speech_lm(str(expdir / "base/final")), clips(path), config.decode)
    ]
    paths = [cut.recording.sources[0].source for path in manifests for cut in CutSet.from_file(path)]
    program = ALL_CLIPS.format(paths=[str(Path(p).resolve()) for p in paths])
    texts, *classes = json.loads(run_in_new_process(program, folder))
    assert texts == [row["hypothesis"] for row in rows] and len(set(texts)) > 1
    assert classes == ["ArkasrForConditionalGeneration", "ArkasrProcessor"]
    flat = json.loads((folder / "config.json").read_text())
    assert ("whisper_config" in flat) == published
    names = load_file(folder / "model.safetensors").keys()
    assert any(name.startswith("audio_encoder.whisper.") for name in names) == published
    exported, original = (
        load_speech_lm(str(folder)).hf.state_dict(),
        load_speech_lm(str(expdir / "base/final")).hf.state_dict(),
    )
    assert exported.keys() == original.keys()
    assert all(torch.equal(exported[name], original[name]) for name in original)


def test_export_generation_config_matches_decoding(expdir, datadir):
    export(str(expdir), str(datadir), ["base"])
    settings = json.loads((expdir / "base/export/generation_config.json").read_text())
    lm = load_speech_lm(str(expdir / "base/final"))
    vocab = lm.tokenizer.get_vocab()
    assert settings["eos_token_id"] in (vocab["<|im_end|>"], [vocab["<|im_end|>"]])
    assert settings["max_new_tokens"] == 6 and settings["do_sample"] is False
    assert settings["pad_token_id"] == vocab["<|endoftext|>"]
    special = {index for token, index in vocab.items() if re.fullmatch(r"<\|.+\|>|<unk>", token)}
    assert set(settings["suppress_tokens"]) == special - {vocab["<|im_end|>"]} and len(special) > 5


def test_export_published_processor_has_published_keys(expdir, datadir):
    export(str(expdir), str(datadir), ["base"], published=True)
    folder = expdir / "base" / "export"
    settings = json.loads((folder / "processor_config.json").read_text())
    assert settings["processor_class"] == "ArkasrProcessor" and settings["audio_token"] == "<|audio|>"
    assert settings["merge_factor"] == 4 and settings["audio_dtype"] == "float32"
    assert settings["tokenizer_config"] == {"padding_side": "left", "model_max_length": 8192}
    extractor = json.loads((folder / "preprocessor_config.json").read_text())
    assert extractor["feature_extractor_type"] == "WhisperFeatureExtractor" and extractor["feature_size"] == 20
    assert metadata_of(folder)["library_name"] == "transformers"


@pytest.mark.parametrize("published", [False, True])
def test_export_leaves_the_ctc_head_and_its_tokens_out(expdir, datadir, published):
    final, folder = expdir / "base" / "final", expdir / "base" / "export"
    shutil.copy(final / "tokenizer.json", final / TOKENIZER)
    assert (final / FILE).is_file()
    export(str(expdir), str(datadir), ["base"], published=published)
    assert not {FILE, TOKENIZER} & {path.name for path in folder.iterdir()}
    assert TOKENIZER not in (folder / "training_run.json").read_text()


# Checkpoints


@pytest.mark.slow
def test_export_checkpoint_has_weights_of_its_step(expdir, datadir):
    """The checkpoint at step 2 of four steps equals the final weights of training for two steps."""
    settings = yaml.safe_load((expdir / "base_opd/config.yaml").read_text())
    del settings["run"]
    path = expdir / "both.yaml"
    path.write_text(yaml.safe_dump(settings | {"runs": {"two": {"train": {"steps": 2}}, "four": {}}}))
    for run in ("two", "four"):
        train(str(path), run, str(expdir), str(datadir), ["optim.schedule=constant"])
    export(str(expdir), str(datadir), ["four"], "step-00000002")
    exported, expected, last = (
        load_file(expdir / place / "model.safetensors") for place in ("four/export", "two/final", "four/final")
    )
    assert exported.keys() == expected.keys()
    assert all(torch.equal(exported[name], expected[name]) for name in exported)
    assert any(not torch.equal(exported[name], last[name]) for name in exported)
    assert not torch.distributed.is_initialized()
    card = (expdir / "four/export/README.md").read_text()
    assert "These weights are not scored" in card and "`step-00000002`, not the final weights (step 2)" in card


@pytest.mark.parametrize(
    ("run", "checkpoint", "removed", "message"),
    [
        ("nobody", "final", None, "nobody: no such run (no config.yaml); existing runs: base, base_opd, teacher"),
        ("base_opd", "step-00000009", None, "no checkpoint 'step-00000009'; use one of: step-00000001, step-0"),
        ("base_opd", "final", "final", "--stage 3 first, or name a checkpoint with --checkpoint (step-00000001, "),
        (
            "base_opd",
            "best",
            "metrics.jsonl",
            ", final) with a measured error rate",
        ),
        (
            "base_opd",
            "step-00000002",
            "checkpoints/step-00000002/model",
            "model: no config.json, so the model is unknown",
        ),
        (
            "base_opd",
            "step-00000002",
            "checkpoints/step-00000002/weights",
            "step-00000002: weights/.metadata is missing",
        ),
        ("base base_opd", "final", None, "x: cannot hold 2 runs; name one run"),
    ],
)
def test_export_rejects_missing_runs_and_weights(expdir, datadir, capsys, run, checkpoint, removed, message):
    if removed:
        path = expdir / "base_opd" / removed
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    words = ["--expdir", str(expdir), "--datadir", str(datadir), "--runs", run, "--checkpoint", checkpoint]
    assert main(["export", *words, "--outdir", str(expdir / "x")]) == 2
    assert message in capsys.readouterr().err and not (expdir / "x").exists()


@pytest.mark.parametrize("part", [".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("harm", ["empty", "cut short", "one bit"])
def test_export_names_damaged_checkpoint(expdir, datadir, capsys, part, harm):
    checkpoint = expdir / "base_opd/checkpoints/step-00000002"
    path = checkpoint / "weights" / part
    content = path.read_bytes()
    half = len(content) // 2
    flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    path.write_bytes({"empty": b"", "cut short": content[:100], "one bit": flipped}[harm])
    words = ["--expdir", str(expdir), "--datadir", str(datadir), "--runs", "base_opd"]
    assert main(["export", *words, "--checkpoint", checkpoint.name]) == 2
    expected = "was changed after it was written" if harm == "one bit" else "bytes, expected"
    error = capsys.readouterr().err
    assert f"{checkpoint}: weights/{part} " in error and expected in error
    assert not list((expdir / "base_opd").glob("writing-*"))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "processor_config.json"])
@pytest.mark.parametrize("size", [0, 60])
def test_export_names_damaged_final_model(expdir, datadir, capsys, name, size):
    path = expdir / "base/final" / name
    path.write_bytes(path.read_bytes()[:size])
    assert main(["export", "--expdir", str(expdir), "--datadir", str(datadir), "--runs", "base"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(expdir / "base/final") in error, error
    assert not (expdir / "base/export").exists()


def test_export_notices_a_flipped_bit_in_the_final_weights(expdir, datadir, capsys):
    path = expdir / "base/final/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert main(["export", "--expdir", str(expdir), "--datadir", str(datadir), "--runs", "base"]) == 2
    assert f"{path}: the weights were changed or damaged" in capsys.readouterr().err


# The folder


def test_export_replaces_earlier_export_but_no_other_folder(expdir, datadir, capsys):
    folder = expdir / "base" / "export"
    folder.mkdir()
    words = ["export", "--expdir", str(expdir), "--datadir", str(datadir), "--runs", "base"]
    assert main(words) == 0  # an empty folder is allowed
    first = sorted(path.name for path in folder.iterdir())
    (folder / "config.json").write_text("changed")
    assert main([*words, "--license", "cc-by-4.0"]) == 0
    assert (
        sorted(path.name for path in folder.iterdir()) == first
        and "changed" not in (folder / "config.json").read_text()
    )
    assert metadata_of(folder)["license"] == "cc-by-4.0"
    (folder / ".git").mkdir()
    capsys.readouterr()
    assert main(words) == 2
    assert "contains .git, which was not written by `arkasr export`" in capsys.readouterr().err
    assert metadata_of(folder)["license"] == "cc-by-4.0"
    assert main([*words, "--outdir", str(expdir / "base" / "final")]) == 2
    assert (expdir / "base/final/model.safetensors").is_file()
    assert main([*words, "--outdir", str(expdir / "base" / "config.yaml")]) == 2
    assert not list(expdir.glob("base/writing-*")) and not list(expdir.glob("base/replaced-*"))


def test_export_refuses_while_another_process_exports(expdir, datadir):
    program = (
        "import sys, time; from pathlib import Path; from arkasr.utils.files import locked\n"
        "with locked(Path(sys.argv[1]), 'exporting base'): print('held', flush=True); time.sleep(60)"
    )
    temporary = expdir / "base" / "writing-export"
    with subprocess.Popen([sys.executable, "-c", program, str(temporary)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="writing-export: exporting base, process .* is using this folder"):
            export(str(expdir), str(datadir), ["base"])
        holder.kill()
    (temporary / "leftover").mkdir()
    export(str(expdir), str(datadir), ["base"])
    names = {path.name for path in (expdir / "base" / "export").iterdir()}
    assert {"model.safetensors", "README.md"} <= names and not names & {"leftover", LOCK}
    assert not temporary.exists()


def test_export_interrupted_keeps_earlier_export(expdir, datadir, monkeypatch):
    folder = expdir / "base" / "export"
    export(str(expdir), str(datadir), ["base"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    module = importlib.import_module("arkasr.export.export")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.model_card, "build_card", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(str(expdir), str(datadir), ["base"], published=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    export(str(expdir), str(datadir), ["base"], published=True)
    assert "whisper_config" in (folder / "config.json").read_text() and not list(expdir.glob("base/writing-*"))


def test_export_contains_no_local_paths(expdir, datadir):
    record = json.loads((expdir / "base_opd/run.json").read_text())
    private_path = "/home/somebody/my corpus"
    record |= {"recipe": f"/home/somebody/arkasr/egs/librispeech/run.sh --corpus_dir '{private_path}'"}
    record["command"] += f" loss.options={{path:{private_path},x:1}} a=file://{private_path}"
    (expdir / "base_opd/run.json").write_text(json.dumps(record))
    export(str(expdir), str(datadir), ["base_opd"], "latest", outdir=str(expdir / "shared"))
    files = {path.name: path.read_bytes() for path in (expdir / "shared").iterdir()}
    assert {"training_run.json", "training_config.yaml", "README.md", "tokenizer.json"} <= files.keys()
    for name, content in files.items():
        for private in (str(expdir), str(expdir.parent), str(datadir), "somebody", str(ROOT), str(Path.home())):
            assert private.encode() not in content, (name, private)
    card = files["README.md"].decode()
    assert "\negs/librispeech/run.sh --corpus_dir '.../my corpus'\n" in card
    config = yaml.safe_load(files["training_config.yaml"])
    assert config["data"]["train"] == "{datadir}/base.jsonl.gz" and config["model"]["path"] == "{expdir}/base/final"
    assert config["distill"]["top_k"] == 4 and config["run"] == "base_opd"


# What a layout and a card cannot hold


def learned_positions(folder):
    """Replace a model by one whose encoder has learned positions."""
    config = AutoConfig.from_pretrained(folder)
    config.audio_config.positions, config.audio_config.max_position_embeddings = "learned", 1500
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def test_export_published_refuses_learned_positions_in_one_sentence(expdir, datadir, capsys):
    learned_positions(expdir / "base/final")
    words = ["export", "--expdir", str(expdir), "--datadir", str(datadir), "--runs", "base"]
    assert main([*words, "--published"]) == 2
    error = capsys.readouterr().err
    assert "base/final: audio_config.positions must be" in error and "without --published" in error
    assert error.count("\n") == 1
    assert not (expdir / "base/export").exists() and not (expdir / "base/writing-export").exists()
    assert main(words) == 0
    exported = load_speech_lm(str(expdir / "base/export")).hf
    assert exported.config.audio_config.positions == "learned"
    weights = load_file(expdir / "base/final/model.safetensors")
    assert all(torch.equal(exported.state_dict()[name], weight) for name, weight in weights.items())


def test_export_leaves_out_scores_of_other_weights(expdir, datadir, capsys):
    path = expdir / "base/scores.json"
    export(str(expdir), str(datadir), ["base"])
    assert "model-index" in metadata_of(expdir / "base/export")
    scores = json.loads(path.read_text())
    scores["sets"]["test-a"]["weights"] = "00ff"
    path.write_text(json.dumps(scores))
    export(str(expdir), str(datadir), ["base"])
    splits = [result["dataset"]["split"] for result in metadata_of(expdir / "base/export")["model-index"][0]["results"]]
    assert splits == ["test-b"]
    scores["sets"]["test-b"]["weights"] = "00ff"
    path.write_text(json.dumps(scores))
    export(str(expdir), str(datadir), ["base"])
    assert "model-index" not in metadata_of(expdir / "base/export")
    assert "This model is not scored." in (expdir / "base/export/README.md").read_text()
    assert "scores.json: test-a, test-b: of other weights than" in capsys.readouterr().out


# Training after an export


def test_train_removes_scores_of_earlier_weights(conf, expdir, datadir):
    """Otherwise the model card would show scores of other weights."""
    shutil.rmtree(expdir / "base_opd/final")
    (expdir / "base_opd/scores.json").write_text("{}")
    config = read_config(expdir / "base_opd/config.yaml")
    changes = ["train.steps=4", "train.save_every=1", "train.eval_every=1", "train.keep=3"]
    changes += [f"model.path={config.model.path}", f"teacher.options.path={config.teacher.options['path']}"]
    train(str(conf), "base_opd", str(expdir), str(datadir), changes)
    assert (expdir / "base_opd/final").is_dir() and not (expdir / "base_opd/scores.json").exists()
