"""Stage 1 of a mix: mix files that name the prepared manifests of the members. No cut and no audio is copied.

| file | contents |
|---|---|
| `train.mix.yaml`, `base.mix.yaml`, `opd.mix.yaml` | training cuts, with the weights of corpus.yaml |
| `td.mix.yaml`, `dev.mix.yaml` | clips to label, and development cuts, without weights |
| `corpus.json` | test sets `<member>-<set>` with profiles, language and manifest, and the hours of all sets |
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from arkasr.config.yaml_io import read_yaml
from arkasr.corpora import data_dir
from arkasr.corpora.corpus import PUBLISHED, REPLACED
from arkasr.corpora.mix_corpus import MixCorpus, MixScale, read_mix_corpus
from arkasr.corpora.prepared_leaks import refuse_prepared_leaks
from arkasr.data.mix import SUFFIX, Member, mix_text
from arkasr.errors import UserError
from arkasr.scoring.older import with_profiles
from arkasr.scoring.profiles import default_profiles
from arkasr.utils.console import length_text, log
from arkasr.utils.files import locked, sha256, write_text

MEMBER = "{member}"  # in --corpus_dir: replaced by the name of each member
WEIGHTED, WHOLE = ("train", "base", "opd"), ("td", "dev")
SCORING = ("language", "profiles", "scored_as")
Facts = dict[str, dict[str, Any]]  # content of corpus.json by member


def prepare_mix(corpus_yaml: str, scale: str, corpus_dir: str, datadir: str, num_jobs: int = 1) -> None:
    """Write the mix files and corpus.json.

    Args:
        corpus_yaml: Path of the corpus.yaml.
        scale: `mini` or `paper`.
        corpus_dir: Data directories of the members, with `{member}` in place of their names.
        datadir: The data directory, made if it is missing.
        num_jobs: Number of threads that compare audio.

    Raises:
        UserError: A member is not prepared or has another scale, none has training cuts, the audio of a dev or test
            set is in the training cuts of another member, or the data directory holds other data.
    """
    mix = read_mix_corpus(corpus_yaml)
    shares, data = mix.scale(scale), Path(datadir).absolute()
    if MEMBER not in corpus_dir:
        raise UserError(
            f"--corpus_dir {corpus_dir}: a mix is prepared from the data folders of its members; write "
            f"{MEMBER} in place of their names, such as ../{MEMBER}/data/{scale}"
        )
    folders = {name: Path(corpus_dir.replace(MEMBER, name)).resolve() for name in mix.members}
    data_dir.require_own(data)
    members = {name: _facts(mix, name, scale, folder) for name, folder in folders.items()}
    identity = {"corpus": mix.name, "scale": scale, "corpus_dir": corpus_dir}
    _check_identity(data, identity)
    mixes, sets = _mixes(data.resolve(), folders, members, shares)
    facts = {"name": mix.name, **identity, "inputs": {"corpus_yaml": sha256(mix.path), "members": _digests(members)}}
    facts |= _describe(data.resolve(), folders, members, sets)
    if _is_up_to_date(data, mixes, facts):  # before the lock: others may share the data for reading only
        log(f"{data}: {mix.name} is already prepared, and its members have not changed")
        return
    with locked(data, "arkasr prepare"):
        _refuse_leaks(mix, folders, members, num_jobs)
        data_dir.claim(data)
        for name, text in mixes.items():
            _write(data / name, text)
        data_dir.write_facts(data, facts)


def _digests(members: Facts) -> Facts:
    """Return the digests of all sets of the members, whose audio was compared."""
    return {
        name: {each: described.get("sha256") for each, described in facts["sets"].items()}
        for name, facts in members.items()
    }


def _is_up_to_date(data: Path, mixes: dict[str, str], facts: dict[str, Any]) -> bool:
    present = {name: (data / name).read_text(encoding="utf-8") if (data / name).is_file() else "" for name in mixes}
    return present == mixes and data_dir.read_facts(data) == facts


def _refuse_leaks(mix: MixCorpus, folders: dict[str, Path], members: Facts, num_jobs: int) -> None:
    """Compare the dev and test sets of each member with the training cuts of the others.

    Two published corpora are not compared. They have no audio in common, and reading them takes long.
    """
    published = {name for name, path in mix.members.items() if read_yaml(path).get("layout") in PUBLISHED}
    for name in folders:
        training = _manifest(folders[name], "train", members[name])
        others = [other for other in folders if other != name and not {name, other} <= published]
        sets = {
            f"{other}-{each}": manifest
            for other in others
            for each in ("dev", *(members[other].get("test_sets") or []))
            if (manifest := _manifest(folders[other], each, members[other]))
        }
        if training and sets:
            refuse_prepared_leaks(str(mix.path), training, sets, True, num_jobs)


def _write(path: Path, text: str) -> None:
    """Write a mix file. An empty text is a set without cuts, which has no file."""
    if text:
        write_text(path, text)
    else:
        path.unlink(missing_ok=True)


def _facts(mix: MixCorpus, name: str, scale: str, folder: Path) -> dict[str, Any]:
    facts = data_dir.read_facts(folder) if folder.is_dir() else None
    command = f"arkasr prepare {mix.members[name]} --scale {scale} --corpus_dir DIR --datadir {folder}"
    if facts is None:
        raise UserError(f"member {name} of {mix.path}: {folder} is not prepared (no corpus.json there); run {command}")
    if facts["scale"] != scale:
        raise UserError(
            f"member {name} of {mix.path}: {folder} is prepared at scale {facts['scale']}, not {scale}; name another "
            f"folder with --corpus_dir, or run {command}"
        )
    return facts


def _check_identity(data: Path, identity: dict[str, str]) -> None:
    old = data_dir.read_facts(data)
    if old is not None and any(old.get(key) != identity[key] for key in ("corpus", "scale")):
        raise UserError(
            f"{data}: holds {old.get('corpus')} at scale {old['scale']}, not {identity['corpus']} at scale "
            f"{identity['scale']}; use another --datadir and --expdir"
        )


def _mixes(
    data: Path, folders: dict[str, Path], members: Facts, shares: MixScale
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Return the content of each mix file by its name, empty for a set without cuts, and describe the sets."""
    mixes, described = {}, {}
    for name in (*WEIGHTED, *WHOLE):
        found = {member: _manifest(folders[member], name, facts) for member, facts in members.items()}
        manifests = {member: os.path.relpath(manifest, data) for member, manifest in found.items() if manifest}
        if without := [member for member in members if member not in manifests]:
            log(f"{name}: nothing from {', '.join(without)}, which have no cuts for it")
        sets = {member: members[member]["sets"][name] for member in manifests}
        hours = {member: float(each.get("hours") or 0) for member, each in sets.items()}
        weights = shares.weights_for(hours) if name in WEIGHTED else dict.fromkeys(hours)
        text = mix_text([Member(path, member, weights[member]) for member, path in manifests.items()])
        mixes[f"{name}{SUFFIX}"] = text if manifests else ""
        if manifests:
            digest = hashlib.sha256(text.encode()).hexdigest()
            described[name] = _sum(sets) | {"sha256": digest, "members": _members(hours, weights)}
            log(f"{name}: {length_text(described[name]['hours'])}, {_shown(described[name]['members'])}")
    if "base" not in described and "opd" not in described:
        raise UserError(f"no member has cuts to train on; see the sets in {', '.join(map(str, folders.values()))}")
    return mixes, described


def _describe(data: Path, folders: dict[str, Path], members: Facts, sets: dict[str, Any]) -> dict[str, Any]:
    """Return the content of corpus.json that follows from the members."""
    tests = _test_sets(data, folders, members)
    return {
        **_scoring(list(members.values())),
        "train": [name for name in sets if name != "dev"],
        "dev": "dev",
        "test_sets": list(tests),
        "paper": {name: column for name, (_, column) in tests.items() if column},
        "sets": sets | {name: facts for name, (facts, _) in tests.items()},
        "members": {name: {"datadir": str(folders[name]), **_scoring([own])} for name, own in members.items()},
        "parts": {},
    }


def _manifest(folder: Path, name: str, facts: dict[str, Any]) -> Path | None:
    """Return the manifest of a set, None if it has no cuts."""
    if not (facts["sets"].get(name) or {}).get("cuts"):
        return None
    return next((path for suffix in (".jsonl.gz", SUFFIX) if (path := folder / f"{name}{suffix}").exists()), None)


def _members(hours: dict[str, float], weights: dict[str, float | None]) -> Facts:
    total = sum(hours.values())
    return {name: {"hours": own, "share": round(weights[name] or own / total, 4)} for name, own in hours.items()}


def _shown(members: Facts) -> str:
    lengths = {name: length_text(each["hours"]) for name, each in members.items()}
    return ", ".join(f"{name} {100 * each['share']:.1f} % ({lengths[name]})" for name, each in members.items())


def _sum(sets: Facts) -> dict[str, Any]:
    """Add up the counts of one set over the members."""
    dropped: dict[str, int] = {}
    for each in sets.values():
        for reason, count in (each.get("dropped") or {}).items():
            dropped[reason] = dropped.get(reason, 0) + count
    counts = {key: sum(each.get(key) or 0 for each in sets.values()) for key in ("cuts", "speakers", "untranscribed")}
    hours = round(sum(float(each.get("hours") or 0) for each in sets.values()), 4)
    return counts | {"hours": hours, "dropped": dropped}


def _test_sets(data: Path, folders: dict[str, Path], members: Facts) -> dict[str, tuple[dict[str, Any], str]]:
    """Describe the test sets of all members, each with its column of the paper, or an empty text."""
    found = {}
    for member, facts in members.items():
        for name in facts.get("test_sets") or []:
            own = facts["sets"].get(name) or {}
            scoring = _scoring_of(own if own.keys() & {"profiles", "normalizer"} else facts | own)
            own = {key: value for key, value in own.items() if key not in (*SCORING, *REPLACED)}
            manifest = folders[member] / (own.get("manifest") or f"{name}.jsonl.gz")
            place = {"corpus": own.get("corpus") or facts["name"], "manifest": os.path.relpath(manifest, data)}
            found[f"{member}-{name}"] = (own | scoring | place, (facts.get("paper") or {}).get(name) or "")
    return found


def _scoring(corpora: list[dict[str, Any]]) -> dict[str, Any]:
    """Return language and profiles if they are equal in all corpora. Otherwise the language is empty."""
    first, *others = map(_scoring_of, corpora)
    if all(first == each for each in others):
        return first
    return {"language": "", "profiles": list(default_profiles(""))}  # as for one corpus in many languages


def _scoring_of(facts: dict[str, Any]) -> dict[str, Any]:
    found = {key: facts[key] for key in (*SCORING, *REPLACED) if facts.get(key)}
    return {"language": ""} | with_profiles(found)
