"""`arkasr decode`: transcribe test sets with trained runs and with the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from arkasr.errors import UserError
from arkasr.evaluation.checkpoint_values import parse_checkpoints
from arkasr.evaluation.checkpoints import fetch, write_checkpoint
from arkasr.evaluation.chosen_sets import chosen_sets
from arkasr.evaluation.results_io import TestSet
from arkasr.evaluation.sources import Source
from arkasr.evaluation.transcribers import quiet_transformers
from arkasr.evaluation.unseen import require_unseen
from arkasr.evaluation.workers import Workers


def decode(
    expdir: str, datadir: str, runs: Sequence[str], test_sets: Sequence[str] = (), checkpoints: Sequence[str] = ()
) -> None:
    """Transcribe every test set with every run and write `<expdir>/<run>/decode/<set>.jsonl`.

    Complete hypotheses are kept, and partial ones are resumed, unless their record beside them shows that the clips,
    the weights, the teacher or the settings have changed. They are then decoded again. Under torchrun, each rank
    transcribes a share of the clips on its own GPU, or on the CPU if there is none.

    Args:
        expdir: Experiment directory with one folder per run.
        datadir: Prepared data directory with `corpus.json` and one manifest per test set.
        runs: Names of the runs. The name `teacher` selects the teacher plugin of the distilled runs: of those among
            `runs`, or of all in `expdir` if there are none.
        test_sets: Values of --test_sets (see `arkasr.evaluation.chosen_sets`). If there are some, only they are
            transcribed.
        checkpoints: Values of --checkpoint (see `arkasr.evaluation.checkpoint_values`).

    Raises:
        UserError: There are fewer GPUs than processes. No run is named, a run does not exist or is
            not trained, no run or several different ones name a teacher, another process decodes the run, audio of
            --test_sets is in the training cuts of `datadir`, or too many clips failed.
    """
    if not runs and not checkpoints:
        raise UserError("--runs is empty; name the runs to decode, such as --runs 'teacher base base_opd'")
    quiet_transformers()
    with Workers(Path(expdir), "decode") as workers:
        rows = [*dict.fromkeys(runs), *workers.decide(lambda: _checkpoints(expdir, checkpoints))]
        found = workers.decide(lambda: _as_json(_sets(expdir, datadir, test_sets)))
        sets = [TestSet(**facts | {"manifest": Path(facts["manifest"])}) for facts in found]
        for row in rows:
            source = Source.of(Path(expdir), row, rows)
            with workers.locked(source.folder / "decode", f"decoding {row}"):
                transcribing = source.transcribing()
                for tested in sets:
                    source.decode(source.file(tested), transcribing, workers, tested)


def _checkpoints(expdir: str, values: Sequence[str]) -> list[str]:
    """Write the configurations of checkpoints, and return their names."""
    found = parse_checkpoints(values, expdir)
    for row in found:
        fetch(row)
        write_checkpoint(row, expdir)
    return [row.name for row in found]


def _sets(expdir: str, datadir: str, values: Sequence[str]) -> list[TestSet]:
    """Return the test sets to transcribe."""
    found = chosen_sets(expdir, datadir, values)
    if values:
        require_unseen(expdir, datadir, found)
    return found


def _as_json(sets: Sequence[TestSet]) -> list[dict[str, str]]:
    return [asdict(each) | {"manifest": str(each.manifest)} for each in sets]
