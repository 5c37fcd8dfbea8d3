"""Refuses values of --test_sets whose audio is in the training cuts of the experiment's data directory.

Stage 1 compares the test sets of a data directory itself. Comparisons without a finding are listed in
`<expdir>/test_sets/compared.json`, so that they are not repeated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from arkasr.data.manifests import digest, is_empty_set
from arkasr.data.mix import SUFFIX
from arkasr.evaluation.results_io import TestSet
from arkasr.utils.files import read_json, write_text

_THREADS = 4


def require_unseen(expdir: str, datadir: str, sets: Sequence[TestSet]) -> None:
    """Compare the ids and the audio of test sets with the training cuts, see `arkasr.corpora.leaks`.

    Args:
        expdir: Experiment directory.
        datadir: Data directory of the experiment. It may be missing, or have no training cuts.
        sets: Test sets that --test_sets names.

    Raises:
        UserError: Audio of one of them is in the training cuts.
    """
    from arkasr.corpora.prepared_leaks import refuse_prepared_leaks  # of stage 1, which other test sets do not need

    names = (Path(datadir) / f"train{suffix}" for suffix in (".jsonl.gz", SUFFIX))
    training = next((path for path in names if path.exists() and not is_empty_set(str(path))), None)
    if training is None:
        return
    record = Path(expdir) / "test_sets" / "compared.json"
    known = read_json(record, "delete it") if record.is_file() else {}
    own = digest(str(training))
    for tested in sets:
        key = f"{own} {digest(str(tested.manifest))}"
        if key not in known:
            where = f"--test_sets {tested.spec}"
            refuse_prepared_leaks(where, training, {tested.name: tested.manifest}, True, _THREADS)
            known[key] = tested.name
            write_text(record, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
