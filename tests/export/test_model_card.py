"""Model cards state what is known: training, results, corpora and pretrained parts. Their example runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import soundfile
from corpus_fixture import clips
from exported import metadata_of, run_in_new_process
from huggingface_hub import ModelCard

from arkasr.config.load import dump_config, read_config
from arkasr.evaluation.hypotheses import transcribe
from arkasr.export.export import export
from arkasr.model.loading import load_speech_lm


def python_block(card: str) -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S)
    return block


@pytest.mark.slow
def test_card_example_runs(expdir, datadir):
    export(str(expdir), str(datadir), ["base"])
    folder, config = expdir / "base" / "export", read_config(expdir / "base" / "config.yaml")
    lm, batch = load_speech_lm(str(expdir / "base/final")), clips(datadir / "test-a.jsonl.gz")
    index = next(i for i, row in enumerate(transcribe(lm, batch, config.decode)) if row["hypothesis"])
    soundfile.write(folder / "clip.wav", batch.waveforms[index].numpy(), 16000, subtype="FLOAT")
    program = python_block((folder / "README.md").read_text(encoding="utf-8"))
    assert run_in_new_process(program, folder).strip() == transcribe(lm, batch, config.decode)[index]["hypothesis"]


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
    assert "| test-a | 5 | WER | 12.35 [10.10, 14.20] |" in card and "| base | training | 1.25 | 8 | 3 |" in card
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
    marker = {"version": 1, "name": "librispeech", "recipe": "librispeech", "seed": 1, "sizes": {}}
    (synthetic / ".completed").write_text(json.dumps(marker))
    (data / "corpus.json").write_text(json.dumps(facts | {"corpus_dir": str(synthetic)}))
    export(str(expdir), str(data), ["base_opd"], outdir=str(tmp_path / "out"))
    assert "datasets" not in metadata_of(tmp_path / "out")
    assert "no recordings" in (tmp_path / "out/README.md").read_text()
    (synthetic / ".completed").write_text("")
    export(str(expdir), str(data), ["base_opd"], outdir=str(tmp_path / "out"))
    assert "unknown whether its speech is recorded" in (tmp_path / "out/README.md").read_text()


def test_card_of_other_data_names_no_published_corpus(expdir, datadir, tmp_path):
    data = Path(shutil.copytree(datadir, tmp_path / "data", ignore=shutil.ignore_patterns("audio")))
    facts = json.loads((data / "corpus.json").read_text()) | {"scale": "paper", "language": None}
    for name, datasets in (("my-recordings", None), ("aishell", ["aishell"])):
        (data / "corpus.json").write_text(json.dumps(facts | {"name": name}))
        export(str(expdir), str(data), ["base_opd"], outdir=str(tmp_path / "out"))
        assert metadata_of(tmp_path / "out").get("datasets") == datasets
        assert f"Corpus `{name}`" in (tmp_path / "out/README.md").read_text()


def test_card_shows_test_sets_of_several_corpora_with_their_own_metric(expdir, datadir):
    path = expdir / "base/scores.json"
    scores = json.loads(path.read_text())
    raw = {"name": "raw", "version": "1", "packages": {}}
    other = {"corpus": "aishell", "metric": "cer", "profile": raw, "scale": "paper"}
    other |= {"rate_percent": 7.0, "interval_percent": [6.0, 8.0], "outdated": ["changed since it was scored: weights"]}
    scores["sets"]["zh"] = scores["sets"]["test-a"] | other
    path.write_text(json.dumps(scores))
    export(str(expdir), str(datadir), ["base"])
    card, metadata = (expdir / "base/export/README.md").read_text(), metadata_of(expdir / "base/export")
    assert "| aishell | zh | 5 | CER | 7.00 [6.00, 8.00] (!) |" in card and "| tones | test-a | 5 | WER |" in card
    assert "- zh: changed since it was scored: weights." in card
    assert "Scoring profiles: `unicode` version 1, `raw` version 1." in card
    assert metadata["metrics"] == ["wer", "cer"]
    results = {result["dataset"]["split"]: result for result in metadata["model-index"][0]["results"]}
    assert results["zh"]["dataset"]["name"] == "aishell zh" and results["zh"]["metrics"][0]["type"] == "cer"
    assert results["test-a"]["metrics"][0]["type"] == "wer"


def test_card_states_doubts_about_error_rates_without_local_paths(expdir, datadir):
    path = expdir / "base/scores.json"
    scores = json.loads(path.read_text())
    scores["warnings"] = [f"trained from other weights than {expdir}/base/final holds now"]
    scores["sets"]["test-a"]["warnings"] = ["transcripts hardly depend on the audio"]
    scores["sets"]["test-b"] |= {"rate_percent": None, "interval_percent": None, "warnings": []}
    path.write_text(json.dumps(scores))
    export(str(expdir), str(datadir), ["base"])
    card = (expdir / "base/export/README.md").read_text()
    assert "- test-a: transcripts hardly depend on the audio." in card and "| - (!) |" in card
    assert "- trained from other weights than .../final holds now." in card and str(expdir) not in card
    (result,) = metadata_of(expdir / "base/export")["model-index"][0]["results"]
    assert result["dataset"]["split"] == "test-a"


def test_export_shows_no_passwords(expdir, datadir):
    secret = "hunter2"
    path = expdir / "base_opd/config.yaml"
    config = read_config(path)
    config.teacher.options |= {"path": f"https://user:{secret}@host/model"}
    dump_config(config, path)
    command = f"arkasr train 'teacher.options.path=https://user:{secret}@host/model' teacher.options.api_key={secret}"
    record = json.loads((expdir / "base_opd/run.json").read_text())
    (expdir / "base_opd/run.json").write_text(json.dumps(record | {"command": command, "recipe": command}))
    export(str(expdir), str(datadir), ["base_opd"])
    for file in (expdir / "base_opd/export").iterdir():
        assert secret.encode() not in file.read_bytes(), file.name
    assert "***" in (expdir / "base_opd/export/README.md").read_text()
