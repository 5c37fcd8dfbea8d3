"""The command `arkasr`. Each verb is one stage of a recipe and calls one function.

Large packages are imported inside the verbs, so that help, `--version` and `plugins` start fast.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

from arkasr import __version__
from arkasr.errors import UserError, explain
from arkasr.utils.console import printable
from arkasr.utils.process import CLOSED_OUTPUT, importing, output_is_closed, prepare_process


def _download(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.corpora.download import download

    download(args.corpus_yaml, args.scale, args.corpus_dir)


def _prepare(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.corpora.prepare import prepare

    prepare(args.corpus_yaml, args.scale, args.corpus_dir, args.datadir, args.nj, args.shar)


def _label(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.evaluation.label import label

    label(args.conf, args.expdir, args.datadir, args.overrides)


def _train(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.training.train import train

    train(args.conf, args.run, args.expdir, args.datadir, args.overrides)


def _decode(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.evaluation.decode import decode

    decode(args.expdir, args.datadir, _rows(args), args.test_sets, args.checkpoint)


def _score(args: argparse.Namespace) -> None:
    if args.ref or args.hyp:
        _score_files(args)
        return
    _refuse(args, _FILES, "is for files of transcripts; add --ref and --hyp, or leave it out")
    if not (args.expdir and args.datadir):
        raise UserError("--expdir or --datadir is missing; name both, or name transcripts with --ref and --hyp")
    with importing():
        from arkasr.reporting.score import score

    score(args.expdir, args.datadir, _rows(args), args.test_sets, args.checkpoint, args.profile)


def _score_files(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.reporting.file_scores import score_files

    _refuse(args, _ROWS, "belongs to an experiment; leave it out, or leave out --ref and --hyp")
    choices = args.profile, args.language, args.format, args.utt2spk, args.json, args.hotwords
    score_files(args.ref or "", args.hyp, *choices)


def _refuse(args: argparse.Namespace, options: Sequence[str], what: str) -> None:
    for option in options:
        if getattr(args, option.removeprefix("--")):
            raise UserError(f"{option} {what}")


def _table(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.reporting.combined.table import table

    table(args.expdirs, args.format, args.tables, args.profile)


def _report(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.reporting.score import write_page

    write_page(args.expdir, args.datadir, args.audio_mib)


def _export(args: argparse.Namespace) -> None:
    if args.model:
        _export_folder(args)
        return
    if not (args.expdir and args.datadir):
        raise UserError("--expdir or --datadir is missing; name both, or name a folder with --model and --onnx")
    with importing():
        from arkasr.export.export import export

    runs = _names(args.runs)
    choices = args.checkpoint or "final", args.published, args.outdir, args.license, args.adapter, args.onnx
    export(args.expdir, args.datadir, runs, *choices)


def _export_folder(args: argparse.Namespace) -> None:
    runs_only = (*_DIRS, "--runs", "--checkpoint", "--published", "--adapter")
    _refuse(args, runs_only, "belongs to the runs of an experiment; leave it out, or leave out --model")
    if not (args.onnx and args.outdir):
        missing = "--outdir" if args.onnx else "--onnx"
        raise UserError(f"--model {args.model}: {missing} is missing; add it, or name runs with --expdir and --runs")
    with importing():
        from arkasr.export.onnx.folder import export_folder

    export_folder(args.model, args.outdir, args.license)


def _transcribe(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.transcription.transcribe import transcribe

    settings = _settings(args, "window_seconds", "segmentation", "word_times", "aligner")
    if len(args.model) + len(args.teacher) > 1 or args.reference:
        failed = _compare(args, settings)
    else:
        model, teacher = (values[0] if values else "" for values in (args.model, args.teacher))
        failed = transcribe(args.files, model, teacher, settings, args.output, args.format, args.device, args.dtype)
    if failed:
        raise SystemExit(SOME_FAILED)


def _compare(args: argparse.Namespace, settings: Any) -> int:
    if args.output:
        raise UserError(f"--output {args.output}: a comparison goes to standard output; write > FILE instead")
    if args.format not in ("", "txt", "json"):
        raise UserError(f"--format {args.format}: a comparison has the formats txt and json; use one of them")
    with importing():
        from arkasr.transcription.comparison.compare import compare, named_systems

    systems = named_systems(args.model, args.teacher)
    return compare(args.files, systems, args.reference, settings, args.format == "json", args.device, args.dtype)


def _settings(args: argparse.Namespace, *names: str) -> Any:
    """Build the options of a transcription from those of the command."""
    from arkasr.transcription.api import make_settings

    options = {name: getattr(args, name) for name in (*names, "hotwords", "hotword_weight")}
    return make_settings(args.language, args.batch_seconds, **options)


def _serve(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.serving.limits import Limits
        from arkasr.serving.serve import Address, serve
        from arkasr.transcription.recognizer import Recognizer

    limits = Limits(**{name: getattr(args, name) for name in SERVE_LIMITS})
    settings = _settings(args, "window_seconds", "segmentation", "aligner")
    load = partial(Recognizer.load, args.model, args.teacher, args.device, args.dtype)
    serve(load, settings, limits, Address(args.host, args.port, args.api_key_file, args.name))


def _sweep(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.sweeps.sweep import sweep

    sweep(args.sweep_file, args.expdir, args.datadir, args.jobs, args.task, args.dry_run)


def _plan(args: argparse.Namespace) -> None:
    with importing():
        from arkasr.planning.plan import plan

    assumptions = {name: value for name in ASSUMED if (value := getattr(args, name)) is not None}
    plan(args.conf, args.run, args.overrides, assumptions, args.json)


def _plugins(args: argparse.Namespace) -> None:
    from arkasr.plugins.registry import listing

    rows = listing()
    print(json.dumps(rows, indent=2, ensure_ascii=False) if args.json else plugin_table(rows))


class Verb(NamedTuple):
    """One verb of the command.

    Attributes:
        call: Function that runs the verb.
        help: One line for `--help`.
        arguments: Keys of `ARGUMENTS`, in the order of `--help`.
    """

    call: Callable[[argparse.Namespace], None]
    help: str
    arguments: tuple[str, ...]


_CORPUS = ("corpus_yaml", "--scale", "--corpus_dir")
_DIRS = ("--expdir", "--datadir")
_ROWS = (*_DIRS, "--runs", "--checkpoint", "--test_sets")
_FILES = ("--ref", "--hyp", "--language", "--format", "--utt2spk", "--hotwords", "--json")
ASSUMED = {  # what `plan` cannot read from a configuration, see docs/plan.md
    "gpus": "number of GPUs or processes",
    "gpus_per_node": "GPUs per machine, for fsdp.replicate=0 (default: 8)",
    "gpu_memory": "memory per GPU, in GiB (default: 80)",
    "tflops": "dense peak throughput per GPU, in TFLOP/s (default: 989)",
    "bandwidth": "memory bandwidth per GPU, in GB/s (default: 3000)",
    "network": "bandwidth per GPU to other machines, in GB/s (default: 25)",
    "node_network": "bandwidth per GPU inside a machine, in GB/s (default: 300)",
    "mfu": "share of the peak throughput that matrix products reach (default: 0.4)",
    "launch_us": "time in which the host starts one kernel, in microseconds (default: 19)",
    "kernel_us": "minimum time of one kernel in a captured decoding step, in microseconds (default: 2.7)",
    "hours": "audio of one epoch, in hours, to predict the number of epochs; unknown if omitted (default: 0)",
    "clip_seconds": "mean duration of the clips, in seconds (default: 12)",
    "tokens_per_second": "transcript tokens per second of audio (default: 3.5)",
    "max_length_ratio": "ratio of longest to mean transcript length per batch (default: 1.5)",
    "batch_fill": "share of data.max_seconds that batches fill on average (default: 0.95)",
    "reserved_memory": "memory per GPU that tensors cannot use, in GiB (default: 2)",
}
SERVE_LIMITS = {  # of `serve`: type, default and help
    "max_mib": (float, 256.0, "largest request, in MiB (default: 256)"),
    "max_seconds": (float, 14400.0, "longest audio of a request, in seconds (default: 14400)"),
    "max_requests": (int, 256, "requests that may be uploaded, wait or run at once (default: 256)"),
    "max_uploads": (int, 32, "requests that are read at once (default: 32)"),
    "client_timeout": (float, 20.0, "seconds for which a client may send nothing (default: 20)"),
    "request_timeout": (float, 1800.0, "seconds for a request after its upload (default: 1800)"),
}
MOST_JOBS = 1024
SOME_FAILED = 1  # exit status if some files failed and the others are done
FOLDERS = ("expdir", "datadir", "corpus_dir", "outdir")
CLOSED_MESSAGE = "the program that reads the output has ended; finished work is kept, run the same command again"
# Old names of options, for the error message.
RENAMED = {
    "--node": "--gpus_per_node",
    "--longest": "--max_length_ratio",
    "--full": "--batch_fill",
    "--reserve": "--reserved_memory",
}
# Options that no longer exist: verbs that had it, and what to do.
REMOVED = {
    "--ngpu": (("label", "decode"), "start the command with torchrun --nproc-per-node N, see docs/distributed.md")
}
VERBS = {
    "download": Verb(_download, "stage 0: download a corpus, or synthesise its miniature", _CORPUS),
    "prepare": Verb(_prepare, "stage 1: convert a corpus to Lhotse cuts", (*_CORPUS, "--datadir", "--nj", "--shar")),
    "label": Verb(_label, "stage 2: transcribe the TD subset with the teacher", ("conf", *_DIRS, "overrides")),
    "train": Verb(_train, "stage 3: train one run of a configuration", ("conf", "--run", *_DIRS, "overrides")),
    "decode": Verb(_decode, "stage 4: transcribe the test sets", _ROWS),
    "score": Verb(
        _score,
        "stage 5: count errors, and write tables and figures; or score any transcripts",
        (*_ROWS, "--profile", *_FILES),
    ),
    "table": Verb(
        _table,
        "print the tables of the paper and of the model card, over experiments",
        ("expdirs", "--format", "--tables", "--profile"),
    ),
    "report": Verb(_report, "write report.html again, from the scores of stage 5", (*_DIRS, "--audio_mib")),
    "export": Verb(
        _export,
        "stage 6: export runs as folders for the Hugging Face Hub",
        (
            *(*_DIRS, "--runs", "--checkpoint", "--published", "--adapter", "--onnx", "--model", "--outdir"),
            "--license",
        ),
    ),
    "transcribe": Verb(
        _transcribe,
        "transcribe audio files, folders and manifests with any model",
        (
            *("files", "--model", "--teacher", "--output", "--format", "--language", "--device", "--dtype"),
            *("--batch_seconds", "--window_seconds", "--segmentation", "--word_times", "--aligner"),
            *("--hotwords", "--hotword_weight", "--reference"),
        ),
    ),
    "serve": Verb(
        _serve,
        "answer OpenAI's transcription API, and show a page for browsers",
        (
            *("--model", "--teacher", "--language", "--device", "--dtype", "--batch_seconds", "--window_seconds"),
            *(
                "--segmentation",
                "--aligner",
                "--hotwords",
                "--hotword_weight",
                "--host",
                "--port",
                "--name",
                "--api_key_file",
            ),
            *(f"--{name}" for name in SERVE_LIMITS),
        ),
    ),
    "sweep": Verb(
        _sweep,
        "train, decode and score points and seeds, and write one table",
        ("sweep_file", *_DIRS, "--jobs", "--task", "--dry_run"),
    ),
    "plan": Verb(
        _plan,
        "predict memory, steps and hours of a run before it starts",
        ("conf", "--run", *(f"--{name}" for name in ASSUMED), "--json", "overrides"),
    ),
    "plugins": Verb(_plugins, "list teachers, token mappers, losses, and plugins that failed", ("--json",)),
}


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1 and at most 9 digits, got '{text}'")
    return int(text)


def _jobs(text: str) -> int:
    if _positive(text) > MOST_JOBS:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_JOBS}, got {text}: all processes start at once")
    return int(text)


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got '{text}'")
    return value


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535, got '{text}'")
    return int(text)


def _mib(text: str) -> float:
    return 0.0 if re.fullmatch(r"0+(\.0*)?", text) else _above_zero(text)


def _not_empty(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; give it a value")
    return text


def _override(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"expected section.key=value, got '{text}'")
    return text


ARGUMENTS: dict[str, dict[str, Any]] = {
    "corpus_yaml": {"type": _not_empty, "help": "description of the corpus, such as egs/librispeech/corpus.yaml"},
    "conf": {"type": _not_empty, "help": "configuration file, such as egs/librispeech/conf/mini.yaml"},
    "sweep_file": {"type": _not_empty, "help": "sweep file, such as egs/librispeech/conf/sweeps/top_k.yaml"},
    "expdirs": {
        "nargs": "+",
        "type": _not_empty,
        "metavar": "[NAME=]EXPDIR",
        "help": "experiment directories, such as exp/mini; those with a name have rows of their own",
    },
    "files": {
        "nargs": "+",
        "type": _not_empty,
        "metavar": "FILE",
        "help": "audio or video of any format, folders, patterns, - for standard input, Lhotse cuts, or JSONL with one "
        "row per clip",
    },
    "overrides": {
        "nargs": "*",
        "type": _override,
        "metavar": "section.key=value",
        "help": "value for a key of the configuration",
    },
    "--scale": {
        "required": True,
        "choices": ("mini", "study", "paper"),
        "help": "mini, study: a synthetic miniature of the corpus, small or larger; paper: the corpus itself",
    },
    "--corpus_dir": {"required": True, "type": _not_empty, "metavar": "DIR", "help": "folder of the corpus"},
    "--datadir": {"required": True, "type": _not_empty, "metavar": "DIR", "help": "folder of the cuts"},
    "--expdir": {"required": True, "type": _not_empty, "metavar": "DIR", "help": "folder of runs and results"},
    "--run": {
        "required": True,
        "type": _not_empty,
        "metavar": "NAME",
        "help": "run of the configuration, such as base_opd",
    },
    "--runs": {"required": True, "nargs": "+", "metavar": "NAME", "help": "runs, such as 'teacher base base_opd'"},
    "--nj": {"type": _jobs, "default": 1, "metavar": "N", "help": "number of parallel jobs (default: 1)"},
    "--shar": {"action": "store_true", "help": "copy the audio into DATADIR, as tar files in the format Lhotse Shar"},
    "--checkpoint": {
        "default": "final",
        "metavar": "NAME",
        "help": "weights to export: final, latest, best (lowest dev error), or a checkpoint such as step-00000100 "
        "(default: final)",
    },
    "--published": {
        "action": "store_true",
        "help": "use the layout in which the architecture was published, for other engines",
    },
    "--adapter": {
        "action": "store_true",
        "help": "write the LoRA adapter alone, in PEFT's layout, not the merged model",
    },
    "--onnx": {"action": "store_true", "help": "write ONNX files in float32, for engines without PyTorch"},
    "--outdir": {
        "default": "",
        "metavar": "DIR",
        "help": "output folder, if there is one run (default: <expdir>/<run>/export)",
    },
    "--license": {"default": "", "metavar": "ID", "help": "Hub id of the license of the weights, such as apache-2.0"},
    "--json": {"action": "store_true", "help": "print JSON"},
    "--audio_mib": {
        "type": _mib,
        "default": 8.0,
        "metavar": "X",
        "help": "maximum size of the audio in report.html, in MiB; 0: no audio (default: 8)",
    },
    "--jobs": {"type": _jobs, "default": 1, "metavar": "N", "help": "trainings that run at once (default: 1)"},
    "--task": {
        "default": "",
        "metavar": "I/N",
        "help": "work on the I-th of N shares of points and seeds (default: that of a Slurm array job, else all)",
    },
    "--dry_run": {"action": "store_true", "help": "print the commands and run nothing"},
    "--ref": {"type": _not_empty, "metavar": "FILE", "help": "references, to score transcripts without an experiment"},
    "--hyp": {
        "nargs": "+",
        "default": [],
        "type": _not_empty,
        "metavar": "[NAME=]FILE",
        "help": "transcripts of one system or of several, which are compared",
    },
    "--profile": {
        "default": "",
        "metavar": "NAME",
        "help": "leading scoring profile (default: of the corpus or the language)",
    },
    "--language": {"default": "", "metavar": "NAME", "help": "language of the transcripts, such as German or de"},
    "--format": {
        "default": "",
        "choices": ("text", "kaldi", "jsonl", "trn", "stm", "ctm"),
        "help": "format of files whose suffix does not name it",
    },
    "--utt2spk": {"default": "", "metavar": "FILE", "help": "an utterance id and its speaker per line, for intervals"},
    "--test_sets": {
        "nargs": "+",
        "default": [],
        "type": _not_empty,
        "metavar": "NAME=PATH",
        "help": "only these test sets: manifests, tables or data folders, such as calls:German=calls.csv",
    },
    **{f"--{name}": {"type": _above_zero, "metavar": "X", "help": text} for name, text in ASSUMED.items()},
    "--gpus": {"required": True, "type": _positive, "metavar": "N", "help": ASSUMED["gpus"]},
    "--gpus_per_node": {"type": _positive, "metavar": "N", "help": ASSUMED["gpus_per_node"]},
}


# Options that differ from `ARGUMENTS` in verbs that work on the rows of the tables. `score` also works on files.
ROW_ARGUMENTS: dict[str, dict[str, Any]] = {
    "--runs": ARGUMENTS["--runs"] | {"required": False, "default": []},
    "--checkpoint": {
        "nargs": "+",
        "default": [],
        "type": _not_empty,
        "metavar": "MODEL",
        "help": "further models, as [NAME=]FOLDER_OR_HUB_ID or [NAME=]PLUGIN:PATH",
    },
}
SCORE_ARGUMENTS = ROW_ARGUMENTS | {name: ARGUMENTS[name] | {"required": False} for name in _DIRS}
SCORE_ARGUMENTS["--hotwords"] = {
    "default": "",
    "metavar": "FILE",
    "help": "one word or phrase per line, to measure their recall and leak",
}
TABLES = ("table1", "table2", "english", "chinese", "other")
TABLE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "--format": {
        "default": "markdown",
        "choices": ("markdown", "csv", "latex"),
        "help": "layout of the tables (default: markdown)",
    },
    "--tables": {
        "nargs": "+",
        "default": list(TABLES),
        "choices": TABLES,
        "metavar": "TABLE",
        "help": f"which tables, some of {' '.join(TABLES)} (default: all)",
    },
    "--profile": ARGUMENTS["--profile"]
    | {"help": "scoring profile of all tables (default: that of the published numbers)"},
}
EXPORT_ARGUMENTS: dict[str, dict[str, Any]] = {
    **{name: ARGUMENTS[name] | {"required": False} for name in _DIRS},
    "--runs": ARGUMENTS["--runs"] | {"required": False, "default": []},
    "--checkpoint": ARGUMENTS["--checkpoint"] | {"default": ""},
    "--model": {
        "type": _not_empty,
        "metavar": "DIR_OR_ID",
        "help": "with --onnx: folder or Hub id of a model, instead of runs",
    },
}
TRANSCRIBE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "--model": {
        "action": "append",
        "default": [],
        "metavar": "[NAME=]MODEL",
        "help": "folder of a model or of a LoRA adapter, or Hub id, such as exp/mini/base_opd/final; several, each "
        "behind an option --model, are compared",
    },
    "--teacher": {
        "action": "append",
        "default": [],
        "metavar": "[NAME=]PLUGIN:PATH",
        "help": "a teacher plugin instead of --model or beside it, such as whisper:openai/whisper-tiny.en",
    },
    "--hotwords": {
        "nargs": "+",
        "default": [],
        "type": _not_empty,
        "metavar": "WORD",
        "help": "words and phrases that decoding prefers, each in quotes; @FILE: one per line",
    },
    "--hotword_weight": {
        "type": _above_zero,
        "default": 1.0,
        "metavar": "X",
        "help": "strength of hotwords, per token; a larger one finds more, also where they are not spoken (default: 1)",
    },
    "--reference": {
        "nargs": "+",
        "default": [],
        "type": _not_empty,
        "metavar": "FILE",
        "help": "what is spoken: a file as `arkasr score --ref` reads it, or text files named as the audio, or their "
        "folder; prints errors and error rates",
    },
    "--output": {
        "default": "",
        "metavar": "PATH",
        "help": "folder, for one file per recording, or file; a second call resumes (default: standard output)",
    },
    "--format": {
        "default": "",
        "choices": ("txt", "json", "jsonl", "srt", "vtt", "tsv"),
        "help": "format of the output (default: the suffix of --output, else txt)",
    },
    "--language": {
        "default": "English",
        "metavar": "NAME",
        "help": "language of the audio, such as German or de (default: English)",
    },
    "--device": {"default": "auto", "metavar": "NAME", "help": "torch device (default: the GPU if there is one)"},
    "--dtype": {
        "default": "auto",
        "choices": ("auto", "float32", "bfloat16", "float16"),
        "help": "data type of the weights (default: bfloat16 on a GPU, else float32)",
    },
    "--batch_seconds": {
        "type": _above_zero,
        "default": 240.0,
        "metavar": "X",
        "help": "seconds of audio per batch, padding included (default: 240)",
    },
    "--segmentation": {
        "default": "auto",
        "choices": ("auto", "pauses", "fixed"),
        "help": "where long audio is cut: in pauses of speech, or in windows that overlap (default: pauses, if "
        "silero-vad is installed)",
    },
    "--window_seconds": {
        "type": _above_zero,
        "metavar": "X",
        "help": "longest stretch of audio that the model reads at once, in seconds (default: 28, or 1.25 times the "
        "longest clip that the model was trained on)",
    },
    "--word_times": {"action": "store_true", "help": "give each word its time, by the CTC head of the model"},
    "--aligner": {
        "default": "",
        "metavar": "DIR",
        "help": "folder of a model whose CTC head finds the times of words (default: the model itself)",
    },
}
SERVE_ARGUMENTS: dict[str, dict[str, Any]] = {
    **TRANSCRIBE_ARGUMENTS,
    "--model": {
        "default": "",
        "metavar": "MODEL",
        "help": "folder of a model or of a LoRA adapter, or Hub id, such as exp/mini/base_opd/final",
    },
    "--teacher": {
        "default": "",
        "metavar": "PLUGIN:PATH",
        "help": "a teacher plugin instead of --model, such as whisper:openai/whisper-tiny.en",
    },
    "--language": TRANSCRIBE_ARGUMENTS["--language"]
    | {"help": "language of requests that name none, such as German or de (default: English)"},
    "--host": {
        "default": "127.0.0.1",
        "type": _not_empty,
        "metavar": "NAME",
        "help": "address that listens; 0.0.0.0: all of this machine (default: 127.0.0.1, this machine only)",
    },
    "--port": {"default": 8000, "type": _port, "metavar": "N", "help": "port; 0: any free one (default: 8000)"},
    "--name": {"default": "", "metavar": "NAME", "help": "name of the model in requests (default: from its folder)"},
    "--api_key_file": {
        "default": "",
        "metavar": "FILE",
        "help": "file with the key that clients must send (default: the environment variable ARKASR_API_KEY, or none)",
    },
    **{
        f"--{name}": {
            "type": _positive if kind is int else _above_zero,
            "default": default,
            "metavar": "N" if kind is int else "X",
            "help": text,
        }
        for name, (kind, default, text) in SERVE_LIMITS.items()
    },
}
SPECIAL_ARGUMENTS = {
    "serve": SERVE_ARGUMENTS,
    "transcribe": TRANSCRIBE_ARGUMENTS,
    "decode": ROW_ARGUMENTS,
    "score": SCORE_ARGUMENTS,
    "table": TABLE_ARGUMENTS,
    "export": EXPORT_ARGUMENTS,
}


def _rows(args: argparse.Namespace) -> list[str]:
    """Return the runs of a verb that works on the rows of the tables."""
    return _names(args.runs) if args.runs or not args.checkpoint else []


def _names(runs: Sequence[str]) -> list[str]:
    """Return the names of both `--runs "a b"` and `--runs a b`, each one once."""
    from arkasr.config.load import is_run_name

    names = list(dict.fromkeys(name for part in runs for name in part.split()))
    if not names:
        raise UserError("--runs is empty: name at least one run, such as base")
    for name in names:
        if not is_run_name(name):
            raise UserError(f"--runs {name}: not a name of a run; name the folder of a run in --expdir, such as base")
    return names


def plugin_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the list of plugins for a terminal.

    Args:
        rows: Return value of `arkasr.plugins.registry.listing`.

    Returns:
        Lines of at most 100 columns: a table, then the plugins that failed to load, with the cause.
    """
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    keys = ("kind", "name", "distribution", "version")
    loaded = [[str(row.get(key) or "") for key in (*keys, "file")] for row in rows if not row.get("error")]
    table = [[*keys, "file"], *loaded]
    sizes = [max(len(line[column]) for line in table) for column in range(len(keys))]
    lines = []
    for *cells, file in table:
        line = "".join(cell.ljust(size + 2) for cell, size in zip(cells, sizes, strict=True))
        room = max(width - len(line), 20)
        lines.append((line + (file if len(file) <= room else "..." + file[3 - room :])).rstrip())
    for row in (row for row in rows if row.get("error")):
        where = " ".join(str(row[key]) for key in ("distribution", "version", "file") if row.get(key))
        label = row.get("name") or row.get("kind") or "plugin"
        text = printable(f"failed: {label}{f' ({where})' if where else ''}: {row['error']}")
        lines += textwrap.wrap(text, width, subsequent_indent="    ", break_long_words=False)
    return "\n".join(lines)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(" ".join(message.split())))


def _verb_parser(name: str) -> argparse.ArgumentParser:
    parser = _Parser(f"arkasr {name}", description=VERBS[name].help, allow_abbrev=False)
    special = SPECIAL_ARGUMENTS.get(name, {})
    for argument in VERBS[name].arguments:
        parser.add_argument(argument, **(special.get(argument) or ARGUMENTS[argument]))
    return parser


def _main_parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {name:12}{verb.help}" for name, verb in VERBS.items())
    parser = _Parser(
        "arkasr",
        usage="arkasr VERB ...   (arkasr VERB --help lists the options)",
        description="On-policy distillation for speech recognition.",
        epilog=f"verbs:\n{verbs}\n\nSet ARKASR_TRACEBACK=1 to see the traceback of an error.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"arkasr {__version__}")
    parser.add_argument("verb", help=argparse.SUPPRESS)
    return parser


def _underscored(word: str) -> str:
    """Read --corpus-dir as --corpus_dir. Values, also those behind `=`, are not changed."""
    name, equals, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + equals + value if word.startswith("--") else word


def _closest(word: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace]:
    """Parse a command line. If it is wrong, print one sentence and exit with status 2.

    Args:
        argv: The words after `arkasr`.

    Returns:
        The verb and its arguments.
    """
    main_parser = _main_parser()
    for word in argv:
        if any("\ud800" <= sign <= "\udfff" for sign in word):  # how Python shows bytes that are not UTF-8
            main_parser.error(f"{printable(word)}: is not UTF-8 text; rename the file or folder")
    name = main_parser.parse_args(argv[:1]).verb
    if name not in VERBS:
        main_parser.error(f"unknown verb '{name}'{_closest(name, list(VERBS))} (verbs: {' '.join(VERBS)})")
    parser, words = _verb_parser(name), [_underscored(word) for word in argv[1:]]
    options = ["--help", *(argument for argument in VERBS[name].arguments if argument.startswith("--"))]
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        if RENAMED.get(option) in options:
            parser.error(f"option {option} is now called {RENAMED[option]}")
        if name in REMOVED.get(option, ((), ""))[0]:
            parser.error(f"option {option} no longer exists; {REMOVED[option][1]}")
        if option not in options:
            parser.error(f"unknown option {option}{_closest(option, options)}")
    return name, parser.parse_intermixed_args(words)


def _print_error(name: str, sentence: str) -> None:
    rank = int(os.environ.get("RANK", "0"))
    command = f"arkasr {name}".rstrip()
    print(f"{command}: {printable(sentence)}" + (f" (rank {rank})" if rank else ""), file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: The words after `arkasr`. None reads them from the command line.

    Returns:
        The exit status: 0, 2 for an error that the user can fix, 130 for Ctrl-C, or 141 if the reader of a listing has
        ended, such as `head`. Other errors are raised.

    Raises:
        SystemExit: The command line is wrong (2), some files could not be transcribed (1), or a signal ended a
            transcription (130 or 143).
    """
    name, folders, listing = "", [], False
    try:
        prepare_process()
        name, args = parse(sys.argv[1:] if argv is None else argv)
        folders = [value for key in FOLDERS if (value := getattr(args, key, ""))]
        listing = name in ("plan", "plugins", "table") or bool(getattr(args, "ref", ""))
        listing = listing or (name == "transcribe" and not args.output)
        VERBS[name].call(args)
        sys.stdout.flush()
        return 0
    except SystemExit:
        if output_is_closed():
            return CLOSED_OUTPUT
        raise
    except KeyboardInterrupt:
        _print_error(name, "interrupted; run the same command again to resume")
        return 130
    except BaseException as error:  # torch's CheckpointException is not an Exception
        closed = isinstance(error, BrokenPipeError) and output_is_closed()
        if closed and listing:
            return CLOSED_OUTPUT
        sentence = CLOSED_MESSAGE if closed else explain(error, folders)
        if sentence is None or os.environ.get("ARKASR_TRACEBACK"):
            raise
        _print_error(name, "error: " + " ".join(sentence.split()))
        return 2
