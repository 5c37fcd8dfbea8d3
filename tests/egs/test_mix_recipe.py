"""The recipe of several corpora: its commands, and one model on a few synthesised sentences of three corpora."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
from recipes import EGS, commands, recipe
from tiny_recipe import OVERLAY

from arkasr.config.load import load_config, run_names
from arkasr.data.manifests import read_cuts
from arkasr.model.loading import load_speech_lm

MEMBERS = ("aishell", "wenetspeech", "librispeech")
SIZES = {
    "librispeech": "{train-clean-5: 20, dev-clean-2: 2, test-clean: 3, test-other: 3}",
    "aishell": "{train: 12, dev: 2, test: 3}",
    "wenetspeech": "{L: 12, M: 6, S: 4, DEV: 2, TEST_NET: 3, TEST_MEETING: 3}",
}
TEST_SETS = {
    "aishell-test": ("cer", "AISHELL-1"),
    "wenetspeech-test-net": ("cer", "Wenet net"),
    "wenetspeech-test-meeting": ("cer", "Wenet meeting"),
    "librispeech-test-clean": ("wer", "Libri clean"),
    "librispeech-test-other": ("wer", "Libri other"),
}
DATA = """
data: {train: "{datadir}/base.mix.yaml", dev: "{datadir}/dev.mix.yaml"}
teacher_data: {clips: "{datadir}/td.mix.yaml"}
"""


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["mini", "paper"])
def test_dry_run_prints_the_stages_of_the_members_and_of_the_mix(scale):
    done = recipe("--scale", scale, "--dry_run", "true", corpus="mix")
    lines = [line[line.index("arkasr") + 1 :] for line in commands(done)]
    for name in MEMBERS:
        folder, source = f"{EGS}/{name}/downloads/{scale}", [f"{EGS}/{name}/corpus.yaml", "--scale", scale]
        download, prepare = (line for line in lines if line[1] == source[0])
        assert download == ["download", *source, "--corpus_dir", folder]
        assert prepare == [
            "prepare",
            *source,
            "--corpus_dir",
            folder,
            "--datadir",
            f"{EGS}/{name}/data/{scale}",
            "--nj",
            "2",
        ]
    mix = next(line for line in lines if line[:2] == ["prepare", "corpus.yaml"])
    assert mix[2:8] == ["--scale", scale, "--corpus_dir", f"../{{member}}/data/{scale}", "--datadir", f"data/{scale}"]
    verbs = [line[0] for line in lines[7:]]
    teacher = ["train"] if scale == "mini" else []
    students = ["train"] * (5 if scale == "mini" else 4)  # mini has the control base_steps
    assert verbs == [*teacher, "label", *students, "decode", "score"]


def test_corpus_dir_holds_the_corpora_by_name(tmp_path):
    for name in MEMBERS:
        (tmp_path / "all" / name).mkdir(parents=True)
    words = ["--corpus_dir", str(tmp_path / "all"), "--dry_run", "true", "--stop_stage", "1", "--scale", "paper"]
    done = recipe(*words, corpus="mix")
    lines = [line[line.index("arkasr") + 1 :] for line in commands(done)]
    assert [line[0] for line in lines] == ["prepare"] * 4  # nothing is downloaded
    for name, line in zip(MEMBERS, lines):
        assert line[line.index("--corpus_dir") + 1] == str(tmp_path / "all" / name)
        assert line[line.index("--datadir") + 1].startswith(f"{EGS}/{name}/data/paper-all")
    data = lines[0][lines[0].index("--datadir") + 1].removeprefix(f"{EGS}/{MEMBERS[0]}/data/")
    assert lines[3][lines[3].index("--corpus_dir") + 1] == f"../{{member}}/data/{data}"
    assert (
        "Skip stage 0: Download aishell: --corpus_dir names an existing corpus" in recipe(*words, corpus="mix").stdout
    )


@pytest.mark.parametrize("scale", ["mini", "paper"])
def test_every_run_reads_a_mix(scale):
    conf = EGS / "mix" / "conf" / f"{scale}.yaml"
    for run in run_names(conf):
        config = load_config(conf, run, "exp", "data")
        sets = {"teacher": "train", "base": "base", "base_steps": "base", "base_opd": "opd", "base_td_opd": "opd"}
        expected = sets.get(run)
        assert config.data.train == (f"data/{expected}.mix.yaml" if expected else "exp/td_teacher.jsonl.gz")
        assert config.data.dev == "data/dev.mix.yaml" and config.teacher_data.clips == "data/td.mix.yaml"
        assert scale == "paper" or config.tokenizer.text == "data/train.mix.yaml"


@pytest.fixture
def tiny(tmp_path):
    pytest.importorskip("espeakng_loader")
    egs = tmp_path / "egs"
    shutil.copytree(EGS, egs, ignore=shutil.ignore_patterns("data", "exp", "downloads"))
    for name, sizes in SIZES.items():
        path = egs / name / "corpus.yaml"
        path.write_text(re.sub(r"^  sizes: .*", f"  sizes: {sizes}", path.read_text(), count=1, flags=re.M))
    text = OVERLAY.replace("BASE_STEPS", "4").replace("eval_clips: 2", "eval_clips: 6")
    text = text.replace("tokenizer: {vocab_size: 60}", 'tokenizer: {vocab_size: 70, text: "{datadir}/train.mix.yaml"}')
    text = text.replace("  teacher:\n", '  teacher:\n    data: {train: "{datadir}/train.mix.yaml"}\n')
    # a teacher that writes short transcripts, so that stage 2 can use them
    text = text.replace("vocab_size: 300", "vocab_size: 400").replace("lr: 2e-2", "lr: 1e-2")
    text = text.replace("steps: 20,", "steps: 30,").replace("max_new_tokens: 8}}", "max_new_tokens: 12}}")
    text = text.replace("base_opd: {train", 'base_opd: {data: {train: "{datadir}/opd.mix.yaml"}, train')
    (egs / "mix" / "conf" / "mini.yaml").write_text(text + DATA)
    return egs / "mix"


@pytest.mark.e2e
def test_one_model_on_three_corpora_has_five_columns(tiny, forked_stages):
    env = os.environ | {"PYTHONPATH": str(EGS.parent), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    python, outputs = ["--python", forked_stages], []
    first = [tiny.parent / "aishell" / "run.sh", *python, "--stop_stage", "1"]
    for words in (first, [tiny / "run.sh", *python, "--variants", "base_td base_opd", "--stop_stage", "6"]):
        done = subprocess.run(words, env=env, cwd=tiny.parents[1], text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    assert "aishell is already prepared, and its inputs have not changed" in outputs[1]  # by its own recipe
    assert all((tiny.parent / name / "data" / "mini" / "corpus.json").is_file() for name in MEMBERS)
    corpus, exp = json.loads((tiny / "data" / "mini" / "corpus.json").read_text()), tiny / "exp" / "mini"
    assert corpus["paper"] == {name: column for name, (_, column) in TEST_SETS.items()}
    assert not list((tiny / "data").rglob("*.jsonl.gz"))
    rows = [json.loads(line) for line in (exp / "base_opd" / "metrics.jsonl").read_text().splitlines()]
    rates = [rows[-1][f"dev_error/{name}"] for name in MEMBERS]
    assert rows[-1]["dev_error"] == pytest.approx(sum(rates) / 3)
    labelled = list(read_cuts(str(exp / "td_teacher.jsonl.gz")))
    for cut in labelled:
        name = cut.id.partition("/")[0]
        assert cut.supervisions[0].language == ("English" if name == "librispeech" else "Chinese")
    assert {cut.id.partition("/")[0] for cut in labelled} <= set(MEMBERS)
    for run in ("teacher", "base_td", "base_opd"):
        scores = json.loads((exp / run / "scores.json").read_text())["sets"]
        assert {name: each["metric"] for name, each in scores.items()} == {
            n: metric for n, (metric, _) in TEST_SETS.items()
        }
        assert all(each["utterances"] == 3 for each in scores.values())
    results = (exp / "RESULTS.md").read_text()
    assert all(column in results for _, column in TEST_SETS.values())
    assert load_speech_lm(str(exp / "base_opd" / "export")).hf.config.model_type == "arkasr"
    card = (exp / "base_opd" / "export" / "README.md").read_text()
    assert all(name in card for name in TEST_SETS)
    assert "language:\n- zh\n- en\n" in card and "- Language: Chinese, English only." in card
