"""The packages under plugins/: installed as by a stranger, listed, run by their own tests, and unknown to the core."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
from installed import install

from arkasr.config.yaml_io import parse_yaml
from arkasr.plugins import registry

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
TEMPLATE = ROOT / "plugins" / "arkasr-template"
VLLM = ROOT / "plugins" / "arkasr-vllm"  # its tests need tests/helpers, so the main test suite runs them
KIND_OF = {"teacher": "teacher", "mapper": "token_mapper", "loss": "loss"}


def blocks(package: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (package / "README.md").read_text(), re.M | re.S)


def project(package: Path) -> dict:
    return tomllib.loads((package / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Path:
    """A copy of the template, renamed by the commands of its README."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(TEMPLATE, checkout / "plugins" / TEMPLATE.name, ignore=shutil.ignore_patterns("__pycache__"))
    commands = blocks(TEMPLATE, "sh")[0]
    subprocess.run(["bash", "-euc", commands], cwd=checkout, check=True)
    return checkout / "arkasr-mine"


@pytest.fixture(scope="module")
def target(tmp_path_factory, mine) -> Path:
    """Where the packages and the template's copy are installed, side by side."""
    folder = tmp_path_factory.mktemp("site")
    for package in (*PACKAGES, mine):
        install(package, folder)
    return folder


@pytest.fixture(scope="module")
def environment(target) -> dict[str, str]:
    path = os.pathsep.join(map(str, (target, ROOT)))
    strict = {"ARKASR_STRICT_PLUGINS": "1", "ARKASR_PLUGINS": "ensemble,skew_kl,template,mine,vllm"}
    return os.environ | strict | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, environment, mine) -> dict[str, list[str]]:
    """Run the tests of all packages in one process; return what failed by the name of the test's module."""
    report = tmp_path_factory.mktemp("report") / "junit.xml"
    folders = [str(package / "tests") for package in (*PACKAGES, mine) if package != VLLM]
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *folders], env=environment, capture_output=True, text=True
    )
    assert report.is_file(), done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for case in xml.parse(report).iter("testcase"):
        failed = [f"{case.get('name')}: {problem.get('message')}" for problem in case]
        found.setdefault(case.get("classname").split(".")[-1], []).append("; ".join(failed))
    return found


def test_there_are_a_template_a_teacher_and_a_loss():
    assert {path.name for path in PACKAGES} >= {"arkasr-template", "arkasr-ensemble", "arkasr-skew-kl"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_package_is_named_alike_throughout(package):
    made = project(package)
    module = package.name.replace("-", "_")
    assert made["name"] == package.name and module.removeprefix("arkasr_") in made["entry-points"]["arkasr"]
    assert (package / f"{module}.py").is_file() or (package / module / "__init__.py").is_file()
    assert (package / "tests" / f"test_{module}.py").is_file()
    assert made["dependencies"][0] == "arkasr" and (len(made["dependencies"]) == 1 or package == VLLM)
    assert "arkasr.testing" in (package / f"tests/test_{module}.py").read_text()


@pytest.mark.parametrize("module", ["arkasr_ensemble", "arkasr_skew_kl", "arkasr_template", "arkasr_mine"])
def test_the_tests_of_a_package_pass(outcomes, module):
    results = outcomes[f"test_{module}"]
    assert len(results) >= 4 and [problem for problem in results if problem] == []


def test_all_are_listed(environment, target):
    command = [sys.executable, "-m", "arkasr", "plugins", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows = {row["name"]: row for row in json.loads(done.stdout) if row["distribution"] != "arkasr"}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "ensemble": "teacher", "mine": "loss", "qwen3_asr_http": "teacher", "skew_kl": "loss",
        "template": "loss"}  # fmt: skip
    for name, row in rows.items():
        file = "arkasr_vllm/teacher.py" if name == "qwen3_asr_http" else f"arkasr_{name}.py"
        assert row["file"] == str(target / file) and row["error"] == "" and row["version"] == "0.1.0"


def test_listing_them_imports_no_torch(environment):
    code = "import sys; from arkasr.plugins.registry import listing; print(len(listing()) > 4, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_nothing_of_the_template_is_left_in_its_copy(mine):
    assert {path.name for path in mine.rglob("*.*")} == {
        "README.md", "arkasr_mine.py", "pyproject.toml", "test_arkasr_mine.py"}  # fmt: skip
    for path in mine.rglob("*.*"):
        assert "template" not in path.read_text().lower(), path
    assert "Make it yours" not in (mine / "README.md").read_text()


@pytest.fixture
def loaded(target, monkeypatch):
    """Let this process find the installed packages."""
    monkeypatch.setenv("ARKASR_PLUGINS", "ensemble,skew_kl,template,vllm")
    monkeypatch.syspath_prepend(target)
    importlib.invalidate_caches()
    registry._load.cache_clear()
    before = set(sys.modules)
    yield
    registry._load.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("arkasr_"):
            del sys.modules[name]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_the_configuration_in_a_readme_is_accepted(loaded, package):
    (text,) = blocks(package, "yaml")
    ((section, values),) = parse_yaml(text, "README.md").items()
    options = registry.check_plugin(KIND_OF[section], values["name"], values["options"])
    assert {key: getattr(options, key) for key in values["options"]} == values["options"]


def test_no_core_file_knows_them():
    names = r"arkasr[_-](ensemble|skew[_-]kl|template)|\b(skew_kl|ensemble)\b"
    knowing = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in (ROOT / "arkasr").rglob("*.py")
        if (found := re.search(names, path.read_text()))
    ]
    assert knowing == []
