"""The benchmarks run at a tiny size and print their tables. Speed is not tested."""

from __future__ import annotations

import json
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import jiwer
import pytest
import soundfile
import torch
from pretrained import saved, whisper
from tiny import teacher_tokenizer, waveform

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import capped
import data_wait
import encoder_positions
import fresh
import head
import hotwords
import long_audio
import mappers
import measured
import opd_step
import rtf
import scoring
import transcribe

from arkasr import token_caps
from arkasr.config.load import dump_config, load_config
from arkasr.transcription.recognizer import Recognizer

pytestmark = pytest.mark.slow

TINY = {"vocab": 300, "width": 8, "top_k": 4, "rows": 5}


def test_head_prints_one_row_per_method_and_size(capsys):
    sizes = [word for name in ("vocab", "width", "top_k") for word in (f"--{name}", str(TINY[name]))]
    head.main([*sizes, "--rows", "3", "300", "--repeats", "2", "--device", "cpu"])
    printed = capsys.readouterr().out
    cells = (r"(\d+)", r"([\w ]+)", r"(\d+\.\d{3})", r"(\d+\.\d)", r"(-?\d+)", r"(-|-?\d+\.\d)", r"-?\d+")
    rows = re.findall(r"^\| " + r" \| ".join(cells) + r" \|$", printed, re.MULTILINE)
    assert printed.startswith("V = 300, width = 8, k = 4, cpu, ")
    assert [(row[0], row[1]) for row in rows] == [(n, way) for n in ("3", "300") for way in head.BASE]
    assert all(row[3] == "1.0" for row in rows if head.BASE[row[1]] == row[1])


def test_head_methods_agree():
    case = head.make_case(**TINY, device="cpu")
    for names in head.PARTS.values():
        results = []
        for way in names:
            head.step(case, way)
            results.append((head.ways(case)[way]()[0].detach(), case.states.grad, case.weight.grad))
        for a, b in zip(*results):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("megabytes", [40, 120])
def test_peak_bytes_includes_freed_memory(megabytes):
    peak = measured.peak_bytes(lambda: torch.ones(megabytes * 2**18).sum(), "cpu") / 2**20
    assert 0.9 * megabytes < peak < megabytes + 20


def test_scoring_methods_agree(capsys):
    scoring.main(["--vocab", "600", "--transcripts", "3", "--seconds", "0.6", "--tokens", "5", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert [row[0] for row in re.findall(r"^\| (full|rows) \| (\d+\.\d+) \|", printed, re.MULTILINE)] == [
        "full",
        "rows",
    ]
    assert float(re.search(r"log-probabilities: (\S+)", printed)[1]) < 1e-5


def test_mappers_give_the_teacher_the_tokens_of_the_text(tmp_path, capsys):
    teacher_tokenizer().save_pretrained(tmp_path)
    mappers.main(["--tokenizer", str(tmp_path), "--clips", "2", "--repeats", "1"])
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\w+) \|", capsys.readouterr().out, re.MULTILINE)
    assert [(row[0], row[2]) for row in rows] == [
        (text, way) for text in mappers.TEXTS for way in ("text", *mappers.NAMES)
    ]
    with pytest.raises(SystemExit):
        mappers.main([])


def test_rtfx_is_audio_time_over_computing_time(capsys):
    rtf.main(["--vocab", "600", "--batch", "1", "3", "--seconds", "0.5", "--repeats", "1", "--dtype", "bfloat16"])
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", printed, re.MULTILINE)
    assert "weights in bfloat16, 0.5 s and 2 tokens per clip" in printed and [row[0] for row in rows] == ["1", "3"]
    for count, spent, faster, factor in rows:
        assert float(factor) == pytest.approx(float(spent) / (int(count) * 0.5), rel=0.05)
        assert float(faster) == pytest.approx(1 / float(factor), rel=0.05)


def test_rtf_makes_no_clips_while_it_measures(monkeypatch):
    """The clips of each batch are made once, however often it is timed."""
    made, make = [], fresh.clips
    monkeypatch.setattr(fresh, "clips", lambda *sizes: made.append(sizes) or make(*sizes))
    rtf.main(["--vocab", "600", "--batch", "2", "--seconds", "0.5", "--repeats", "3"])
    assert made == [(2, 0.5)]


def losses(printed: str) -> tuple[float, ...]:
    """Return the losses of the reference and of arkasr."""
    return tuple(map(float, re.search(r"^\| loss \| ([\d.]+) \| ([\d.]+) \|", printed, re.MULTILINE).groups()))


def test_opd_step_of_fresh_models_agrees_with_the_reference(capsys):
    opd_step.main(
        ["--fresh", "mini", "--vocab", "600", "--clips", "2", "--seconds", "0.6", "--cap", "5", "--repeats", "1"]
    )
    reference, loss = losses(capsys.readouterr().out)
    assert reference > 0 and abs(reference - loss) < 1e-4 * reference


def test_opd_step_of_trained_models_agrees_with_the_reference(conf, trained, datadir, tmp_path, capsys):
    expdir = Path(shutil.copytree(trained, tmp_path / "exp"))
    (expdir / "base_opd").mkdir()
    settings = ["distill.top_k=6", f"teacher.options.path={expdir}/teacher/final"]
    dump_config(load_config(conf, "base_opd", str(expdir), str(datadir), settings), expdir / "base_opd" / "config.yaml")
    words = ["--expdir", str(expdir), "--datadir", str(datadir), "--clips", "4", "--cap", "9", "--repeats", "1"]
    opd_step.main(words)
    printed = capsys.readouterr().out
    for phase in (*opd_step.PHASES, "step"):
        assert re.search(rf"^\| {phase} \(s\) \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$", printed, re.MULTILINE), phase
    reference, loss = losses(printed)
    assert reference > 0 and abs(reference - loss) < 1e-4 * reference


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Twelve clips of noise with letters as transcripts."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(12):
        soundfile.write(folder / f"{number}.wav", waveform(9600 + 320 * number, number).numpy(), 16000)
    rows = [json.dumps({"audio": f"{number}.wav", "text": "AB A"[: 1 + number % 4]}) for number in range(12)]
    (folder / "clips.jsonl").write_text("\n".join(rows))
    return folder / "clips.jsonl"


def test_encoder_positions_prints_one_row_per_encoder(manifest, tmp_path, capsys):
    words = ["--whisper", saved(whisper(), tmp_path), "--clips", str(manifest), "--count", "8", "--epochs", "1"]
    encoder_positions.main([*words, "--train", str(manifest), "--train_count", "6", "--test_count", "4"])
    rows = re.findall(r"^\| (\w+) \| (-?\d+\.\d{3}) \| (\d+\.\d) \|$", capsys.readouterr().out, re.MULTILINE)
    assert [row[0] for row in rows] == ["learned", "rotary", "both", "random"]
    assert all(float(row[1]) <= 1 for row in rows)


def test_linear_r2_of_a_linear_map_and_of_noise():
    states = [torch.randn(40, 6) for _ in range(10)]
    targets = [row @ torch.randn(6, 3, generator=torch.Generator().manual_seed(1)) + 2 for row in states]
    assert encoder_positions.linear_r2(states, targets) > 0.999
    assert encoder_positions.linear_r2(states, [torch.randn(40, 3) for _ in states]) < 0.1


def test_data_wait_prints_one_row_per_number_of_ranks_and_way_of_reading(capsys):
    sizes = {"cuts": 200, "files": 5, "clips": 3, "seconds": 2.5, "workers": 1, "step": 0.01, "steps": 4, "warmup": 1}
    data_wait.main([word for name, value in sizes.items() for word in (f"--{name}", str(value))])
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| (\d+) \| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", printed, re.MULTILINE)
    assert [row[:2] for row in rows] == [(n, lazy) for lazy in ("never", "always") for n in ("1", "8", "24")]
    assert all(float(median) <= float(most) <= float(longest) for *_, median, most, longest in rows)


def test_hotwords_prints_one_row_per_number(capsys):
    words = ["--vocab", "600", "--hotwords", "3", "20", "--clips", "2", "--tokens", "4", "--repeats", "1"]
    hotwords.main(words)
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|", capsys.readouterr().out, re.M)
    assert [row[0] for row in rows] == ["0", "3", "20"] and rows[0][4] == "1.000"
    assert int(rows[1][2]) < int(rows[2][2])


def test_hotwords_counts_the_transcripts_that_they_change(capsys):
    words = ["--vocab", "600", "--hotwords", "20", "--clips", "2", "--tokens", "4", "--repeats", "1"]
    hotwords.main([*words, "--weight", "100"])
    printed = capsys.readouterr().out
    changed = re.findall(r"^\| (\d+) \|.* - \| - \| (\d) of 2 \|", printed, re.M)  # no graphs on a CPU
    assert changed == [("0", "0"), ("20", "2")] * 2


def test_long_audio_prints_the_rate_of_the_clips_and_one_row_per_way(trained, datadir, capsys):
    model, cuts = str(trained / "base" / "final"), str(datadir / "test-a.jsonl.gz")
    options = ["--minutes", "0.04", "--short_minutes", "0.01", "--pauses", "0-0", "0.2-0.4", "--window_seconds", "2"]
    status = long_audio.main(["--model", model, "--cuts", cuts, *options, "--segmentation", "fixed"])
    printed = capsys.readouterr().out
    chosen = long_audio.chosen(cuts, 0.04, 0)
    texts = Recognizer.load(model, device="cpu").transcribe(
        [long_audio.read_waveform(cut) for cut in chosen], ["English"] * len(chosen)
    )
    rate = 100 * jiwer.wer([cut.supervisions[0].text for cut in chosen], [text.lower() for text in texts])
    assert f"{len(chosen)} clips" in printed
    assert f": {rate:.2f} % errors if each is transcribed alone" in printed
    cells = (r"([\d.-]+)", "fixed", r"\d+", r"([\d.]+)", r"([+-][\d.]+)", r"\d+", r"-?\d+", r"-?\d+")
    rows = re.findall(r"^\| " + r" \| ".join(cells) + r" \|$", printed, re.MULTILINE)
    assert [row[0] for row in rows] == ["0-0", "0.2-0.4"]
    assert all(float(row[1]) == pytest.approx(rate + float(row[2]), abs=0.02) for row in rows)
    assert status == any(float(row[2]) > 1 for row in rows)


def test_long_audio_places_clips_with_silence_between(datadir, tmp_path):
    cuts = long_audio.chosen(str(datadir / "train.jsonl.gz"), 0.1, 1)
    clips = long_audio.write(tmp_path / "long.wav", cuts, (0.5, 1.0), 1)
    samples = torch.from_numpy(soundfile.read(tmp_path / "long.wav", dtype="float32")[0])
    for before, after in pairwise(clips):
        assert 0.5 <= after.start - before.end <= 1.0
    for clip in clips:
        part = samples[round(clip.start * 16000) : round(clip.end * 16000)]
        torch.testing.assert_close(part, long_audio.read_waveform(clip.cut), atol=1e-4, rtol=0)


def test_transcribe_prints_one_row_per_way_and_the_texts_are_equal(capsys):
    transcribe.main(["--vocab", "600", "--clips", "3", "--longest", "2", "--repeats", "1"])
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \| (\d+) \|", printed, re.M)
    assert [row[0] for row in rows] == ["loop", "transcribe"] and "equal texts: 3 of 3" in printed
    ratios = [float(value) for value in re.findall(r"loop / transcribe.*?: ([\d.]+)", printed)]
    assert ratios == pytest.approx([float(rows[0][1]) / float(rows[1][1])] * 2, rel=0.2)


def test_transcribe_keeps_its_weights_and_can_leave_the_loop_out(tmp_path, capsys):
    words = ["--vocab", "600", "--clips", "3", "--longest", "2", "--repeats", "1", "--loop_repeats", "0"]
    transcribe.main([*words, "--weights", str(tmp_path)])
    (model,) = tmp_path.iterdir()
    written = (model / "config.json").stat().st_mtime_ns
    transcribe.main([*words, "--weights", str(tmp_path)])
    assert (model / "config.json").stat().st_mtime_ns == written and [*tmp_path.iterdir()] == [model]
    assert re.findall(r"^\| (\w+) \| \d", capsys.readouterr().out, re.M) == ["transcribe", "transcribe"]


def test_transcripts_of_random_weights_end_at_their_cap(tmp_path, monkeypatch):
    model = capped.kept_weights("mini", 600, tmp_path, "cpu", "float32")
    monkeypatch.setenv("TOKENS_PER_SECOND", "5")
    clips = [waveform(32000, 0)]
    (found,) = capped.Capped.load(str(model), device="cpu").transcribe(clips, ["English"])
    assert found.stopped and not found.looping and [found.num_tokens] == token_caps(clips, 1000, 5.0)


def test_files_of_a_folder_divide_it_evenly_by_length(tmp_path):
    for i, seconds in enumerate((5, 1, 4, 2, 3, 6)):
        soundfile.write(tmp_path / f"{i}.wav", torch.zeros(100 * seconds).numpy(), 16000)
    assert sorted(soundfile.info(path).frames for path in transcribe.of_folder(tmp_path, 3)) == [100, 300, 500]
