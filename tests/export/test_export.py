"""Exports load in a new process and transcribe as before. Model cards state what is known and nothing private."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from corpus_fixture import clips
from huggingface_hub import ModelCard
from lhotse import CutSet
from safetensors.torch import load_file

from arkasr.cli import main
from arkasr.config.load import dump_config, read_config
from arkasr.evaluation.decode import decode
from arkasr.evaluation.hypotheses import transcribe
from arkasr.evaluation.score import score
from arkasr.export.export import export
from arkasr.export.redact import public_text
from arkasr.export.select_weights import find_source
from arkasr.model.loading import load_speech_lm
from arkasr.training.train import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def distilled(conf, trained, datadir, tmp_path_factory):
    """An experiment with `base` (scored) and `base_opd`, distilled from it with checkpoints at steps 1 to 3."""
    expdir = tmp_path_factory.mktemp("distilled")
    for run in ("teacher", "base"):
        shutil.copytree(trained / run, expdir / run)
    changes = ["train.steps=4", "train.save_every=1", "train.eval_every=1", "train.keep=3"]
    train(str(conf), "base_opd", str(expdir), str(datadir), changes)
    for path in expdir.glob("*/run.json"):  # these runs have no command line
        command = (
            f"arkasr train c.yaml --expdir {trained if path.parent.name == 'base' else expdir} --datadir={datadir}"
        )
        path.write_text(json.dumps(json.loads(path.read_text()) | {"command": command}))
    decode(str(expdir), str(datadir), ["base"])
    score(str(expdir), str(datadir), ["base"])
    return expdir


@pytest.fixture
def expdir(distilled, tmp_path):
    """A writable copy of that experiment."""
    return Path(shutil.copytree(distilled, tmp_path / "exp"))


def run_in_new_process(program: str, folder: Path) -> str:
    """Run a Python program in a new process with `folder` as working directory, and return its output."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python_block(card: str) -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)
    return block


def metadata_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


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


@pytest.mark.slow
def test_card_example_runs(expdir, datadir):
    export(str(expdir), str(datadir), ["base"])
    folder, config = expdir / "base" / "export", read_config(expdir / "base" / "config.yaml")
    lm, batch = load_speech_lm(str(expdir / "base/final")), clips(datadir / "test-a.jsonl.gz")
    index = next(i for i, row in enumerate(transcribe(lm, batch, config.decode)) if row["hypothesis"])
    soundfile.write(folder / "clip.wav", batch.waveforms[index].numpy(), 16000, subtype="FLOAT")
    program = python_block((folder / "README.md").read_text(encoding="utf-8"))
    assert run_in_new_process(program, folder).strip() == transcribe(lm, batch, config.decode)[index]["hypothesis"]


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


def test_find_source_selects_final_latest_best_and_named_checkpoint(expdir):
    rows = [json.loads(line) for line in (expdir / "base_opd/metrics.jsonl").read_text().splitlines()]
    for row, error in zip(rows, (0.0, 0.4, 0.2, 0.3), strict=True):  # the best checkpoint, step 1, was deleted
        row["dev_error"] = error
    (expdir / "base_opd/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.rmtree(expdir / "base_opd/checkpoints/step-00000001")
    found = {name: find_source(str(expdir), "base_opd", name) for name in ("final", "latest", "best", "step-00000002")}
    assert {name: source.step for name, source in found.items()} == {
        "final": 4, "latest": 4, "best": 3, "step-00000002": 2,
    }  # fmt: skip
    assert found["best"].name == "step-00000003"
    shutil.rmtree(expdir / "base_opd/final")
    assert find_source(str(expdir), "base_opd", "latest").name == "step-00000003"


@pytest.mark.parametrize(
    ("run", "checkpoint", "removed", "message"),
    [
        ("nobody", "final", None, "nobody: no such run (no config.yaml); existing runs: base, base_opd, teacher"),
        ("teacher", "final", None, "a model of type qwen3_asr cannot be exported, only arkasr"),
        ("base_opd", "step-00000009", None, "no checkpoint 'step-00000009'; use one of: step-00000001, step-0"),
        ("base_opd", "final", "final", "--stage 3 first, or name a checkpoint with --checkpoint (step-00000001, "),
        (
            "base_opd",
            "best",
            "metrics.jsonl",
            "(step-00000001, step-00000002, step-00000003, final) with a measured error rate",
        ),
        (
            "base_opd",
            "step-00000002",
            "checkpoints/step-00000002/model",
            "model: no config.json, so the model is unknown",
        ),
        ("base_opd", "step-00000002", "checkpoints/step-00000002/weights", "step-00000002/weights: cannot be read"),
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
@pytest.mark.parametrize("size", [0, 100])
def test_export_names_broken_checkpoint(expdir, datadir, capsys, part, size):
    folder = expdir / "base_opd/checkpoints/step-00000002/weights"
    (folder / part).write_bytes((folder / part).read_bytes()[:size])
    words = [
        "--expdir",
        str(expdir),
        "--datadir",
        str(datadir),
        "--runs",
        "base_opd",
        "--checkpoint",
        folder.parent.name,
    ]
    assert main(["export", *words]) == 2
    assert f"{folder}: cannot be read (" in capsys.readouterr().err


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


# The card


def test_card_states_training_and_results(expdir, datadir):
    facts = json.loads((datadir / "corpus.json").read_text())
    data = Path(shutil.copytree(datadir, expdir / "data", ignore=shutil.ignore_patterns("audio")))
    sets = {"base": {"cuts": 8, "hours": 1.25, "speakers": 3}, "test-a": {"cuts": 5, "hours": 0.5, "speakers": 0}}
    (data / "corpus.json").write_text(json.dumps(facts | {"sets": sets}))
    scores = json.loads((expdir / "base/scores.json").read_text())
    scores["sets"]["test-a"] |= {"rate_percent": 12.3456, "interval_percent": [10.1, 14.2]}
    (expdir / "base/scores.json").write_text(json.dumps(scores))
    export(str(expdir), str(data), ["base", "base_opd"])
    metadata, card = metadata_of(expdir / "base/export"), (expdir / "base/export/README.md").read_text()
    assert metadata["language"] == ["en"] and metadata["metrics"] == ["wer"]
    assert metadata["pipeline_tag"] == "automatic-speech-recognition"
    assert "license" not in metadata and "datasets" not in metadata and "base_model" not in metadata
    result = metadata["model-index"][0]["results"][0]
    assert result["task"]["type"] == "automatic-speech-recognition" and result["dataset"]["split"] == "test-a"
    assert result["metrics"][0] == {
        "type": "wer", "name": "WER in percent, 95 % interval [10.10, 14.20]", "value": 12.35,
    }  # fmt: skip
    assert "| test-a | 5 | 12.35 [10.10, 14.20] |" in card and "| base | training | 1.25 | 8 | 3 |" in card
    assert "## Licence\n\nNot stated." in card and "**Miniature.**" in card and "English only" in card
    assert "unknown whether its speech is recorded or synthesised" in card  # corpus.json names no folder
    rows = [json.loads(line) for line in (expdir / "base_opd/metrics.jsonl").read_text().splitlines()]
    opd = (expdir / "base_opd/export/README.md").read_text()
    assert "This model is not scored." in opd and "model-index" not in metadata_of(expdir / "base_opd/export")
    line = next(line for line in opd.splitlines() if line.startswith("| base_opd | base | distillation | qwen3_asr"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[4] == "shared_strings" and cells[6] == "4" and cells[8] == f"{rows[-1]['loss']:.3f}"
    assert int(cells[7]) == pytest.approx(3600 * rows[-1]["hours_seen"], abs=0.6)
    assert json.loads((expdir / "base_opd/run.json").read_text())["versions"]["torch"] in opd


def test_card_is_read_back_by_huggingface_hub(expdir, datadir):
    export(str(expdir), str(datadir), ["base", "base_opd"], terms="cc-by-4.0")
    path, scores = expdir / "base/export/README.md", json.loads((expdir / "base/scores.json").read_text())
    card, data = ModelCard.load(path), ModelCard.load(path).data
    keys = {"language", "library_name", "license", "metrics", "model-index", "pipeline_tag", "tags"}
    assert data.to_dict().keys() == keys and data.license == "cc-by-4.0"
    assert ModelCard.load(expdir / "base_opd/export/README.md").data.to_dict().keys() == keys - {"model-index"}
    assert str(card) == path.read_text(encoding="utf-8") and card.text.startswith(f"\n# {data.model_name}\n")
    expected = {name: round(summary["rate_percent"], 2) for name, summary in scores["sets"].items()}
    assert {result.dataset_split: result.metric_value for result in data.eval_results} == expected


def test_card_names_pretrained_parts_and_recorded_corpus(expdir, datadir, tmp_path):
    data = Path(shutil.copytree(datadir, tmp_path / "data", ignore=shutil.ignore_patterns("audio")))
    facts = json.loads((data / "corpus.json").read_text()) | {"name": "librispeech"}
    saved = read_config(expdir / "base/config.yaml")
    saved.model.encoder, saved.model.decoder = "openai/whisper-large-v3", "Qwen/Qwen2.5-0.5B"
    dump_config(saved, expdir / "base/config.yaml")
    (data / "corpus.json").write_text(json.dumps(facts | {"scale": "paper"}))
    export(str(expdir), str(data), ["base_opd"], outdir=str(tmp_path / "out"))
    metadata = metadata_of(tmp_path / "out")
    assert metadata["base_model"] == ["openai/whisper-large-v3", "Qwen/Qwen2.5-0.5B"]
    assert metadata["datasets"] == ["librispeech"]
    assert "**Miniature.**" not in (tmp_path / "out/README.md").read_text()
    synthetic = tmp_path / "synthetic"
    synthetic.mkdir()
    (synthetic / ".completed").write_text('{"version": 1}')
    (data / "corpus.json").write_text(json.dumps(facts | {"corpus_dir": str(synthetic)}))
    export(str(expdir), str(data), ["base_opd"], outdir=str(tmp_path / "out"))
    assert "datasets" not in metadata_of(tmp_path / "out")
    assert "no recordings" in (tmp_path / "out/README.md").read_text()


def test_train_removes_scores_of_earlier_weights(conf, expdir, datadir):
    """Otherwise the model card would show scores of other weights."""
    shutil.rmtree(expdir / "base_opd/final")
    (expdir / "base_opd/scores.json").write_text("{}")
    config = read_config(expdir / "base_opd/config.yaml")
    changes = ["train.steps=4", "train.save_every=1", "train.eval_every=1", "train.keep=3"]
    changes += [f"model.path={config.model.path}", f"teacher.options.path={config.teacher.options['path']}"]
    train(str(conf), "base_opd", str(expdir), str(datadir), changes)
    assert (expdir / "base_opd/final").is_dir() and not (expdir / "base_opd/scores.json").exists()


PATHS = [
    ("/data/LibriSpeech", ".../LibriSpeech"),
    ("--corpus_dir=/data/my corpus", "--corpus_dir=.../my corpus"),
    ("~/x/conf.yaml", ".../conf.yaml"),
    ("~me/conf.yaml", ".../conf.yaml"),
    ("//server/share/a", ".../a"),
    ("a:/home/me/b", "a:.../b"),
    ("[/home/me/a, '/home/me/b']", "[.../a, '.../b']"),
    ("/home/me/arkasr/egs/aishell/run.sh", "egs/aishell/run.sh"),
    ("https://host/a/b", "https://host/a/b"),
    ("http://host:80/a", "http://host:80/a"),
    ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
    ("../exp/mini", "../exp/mini"),
    ("exp/try/base", "{expdir}/base"),
    ("exp/tryout", "exp/tryout"),
]


@pytest.mark.parametrize(("text", "shared"), PATHS)
def test_public_text_removes_local_paths(text, shared):
    assert public_text(text, {"exp/try": "{expdir}"}) == shared
