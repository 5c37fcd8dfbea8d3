"""`arkasr decode`: transcribe test sets with trained runs and with the teacher."""

from __future__ import annotations

from pathlib import Path

from arkasr.errors import UserError
from arkasr.evaluation.results_io import hypothesis_file, read_corpus_facts
from arkasr.evaluation.sources import TEACHER, Source
from arkasr.evaluation.transcribers import quiet_transformers
from arkasr.utils.files import locked


def decode(expdir: str, datadir: str, runs: list[str], ngpu: int = 1) -> None:
    """Transcribe every test set with every run and write `<expdir>/<run>/decode/<set>.jsonl`.

    Complete hypotheses are kept, and partial ones are resumed, unless their record beside them shows that the clips,
    the weights, the teacher or the settings have changed. They are then decoded again.

    Args:
        expdir: Experiment directory with one folder per run.
        datadir: Prepared data directory with `corpus.json` and one manifest per test set.
        runs: Names of the runs. The name `teacher` selects the teacher plugin of the distilled runs: of those among
            `runs`, or of all in `expdir` if there are none.
        ngpu: Number of processes, each on its own GPU, or on the CPU if there is none.

    Raises:
        UserError: There are fewer GPUs than processes, or a process ended. No run is named, a run does not exist or is
            not trained, no run or several different ones name a teacher, another process decodes the run, or too many
            clips failed.
    """
    if not runs:
        raise UserError("--runs is empty; name the runs to decode, such as --runs 'teacher base base_opd'")
    quiet_transformers()
    runs = list(dict.fromkeys(runs))
    corpus = read_corpus_facts(datadir)
    for run in runs:
        source = Source.teacher(Path(expdir), runs) if run == TEACHER else Source.run(Path(expdir), run)
        with locked(source.folder / "decode", f"decoding {run}"), source.processes(ngpu) as processes:
            for name in corpus["test_sets"]:
                path, manifest = hypothesis_file(expdir, run, name), Path(datadir) / f"{name}.jsonl.gz"
                source.decode(source.file(path, manifest, f"decode {run} {name}"), processes, corpus)
