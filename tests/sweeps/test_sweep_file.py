"""The keys of a sweep file, and what is refused."""

from __future__ import annotations

import pytest

from arkasr.errors import UserError
from arkasr.sweeps.sweep_file import read_sweep


def written(conf, tmp_path, text):
    path = tmp_path / "top_k.yaml"
    path.write_text(f"conf: {conf}\n{text}")
    return path


def test_sweep_has_points_and_defaults(conf, tmp_path):
    sweep = read_sweep(
        written(conf, tmp_path, "shared: [teacher, base]\nruns: [base_opd]\ngrid: {distill.top_k: [2, 4]}")
    )
    assert [point.name for point in sweep.points] == ["top_k-2", "top_k-4"]
    assert sweep.file.seeds == [1] and sweep.file.roundings == [0] and sweep.title == "top_k" and sweep.conf == conf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs: [base_opd]\ngird: {}", "unknown key gird; did you mean grid"),
        ("shared: [teacher]", "runs is missing"),
        ("runs: []", "runs must have at least one value"),
        ("runs: [base, base]", "runs must have different values"),
        ("runs: [base]\nseeds: [-1]", "seeds must be from 0 to 2147483647"),
        ("runs: [base]\nseeds: []", "seeds must have at least one value"),
        ("runs: [base]\nrounding_seeds: [2]", r"rounding_seeds must be some of seeds \[1\], got 2"),
        ("runs: [bsae]", "has no run bsae; available: teacher, base"),
        ("runs: [base]\nshared: [base]", "run base is in both shared and runs"),
        ("runs: [base]\nonce: [base]", "run base is in both once and runs; keep one"),
        ("runs: [base]\nonce: [teacher]\nshared: [teacher]", "run teacher is in both once and shared; keep one"),
        ("runs: [base]\nonce: [taecher]", "has no run taecher; available: teacher, base"),
        ("runs: [base]\ngrid: {seed: [1, 2]}", "key seed cannot be an override of all runs; list its values in seeds"),
        ("runs: [base]\npoints: {shared: {}}", "point shared has the name of a run, or is once or shared"),
        ("runs: [base]\npoints: {once: {}}", "point once has the name of a run, or is once or shared"),
        ("runs: [base]\nskip: [other]", "skip: other is neither a run nor a point"),
    ],
)
def test_wrong_file_is_refused(conf, tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_sweep(written(conf, tmp_path, text))


def test_missing_configuration_is_refused(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("conf: no.yaml\nruns: [base]\n")
    with pytest.raises(UserError, match=r"s\.yaml: conf .*no\.yaml: no such file"):
        read_sweep(path)
