"""The packages under plugins/: they install, are listed, pass their own tests, and are not named in arkasr itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fresh_plugins import fresh_plugins
from installed import install

from arkasr.config.yaml_io import parse_yaml
from arkasr.plugins import registry

pytestmark = pytest.mark.slow

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
def own_package(tmp_path_factory) -> Path:
    """Copy the template and rename the copy with the commands of its README."""
    checkout = tmp_path_factory.mktemp("checkout")
    shutil.copytree(TEMPLATE, checkout / "plugins" / TEMPLATE.name, ignore=shutil.ignore_patterns("__pycache__"))
    commands = blocks(TEMPLATE, "sh")[0]
    subprocess.run(["bash", "-euc", commands], cwd=checkout, check=True)
    return checkout / "arkasr-mine"


@pytest.fixture(scope="module")
def target(tmp_path_factory, own_package) -> Path:
    """Install all packages and the copy of the template in one folder."""
    folder = tmp_path_factory.mktemp("site")
    for package in (*PACKAGES, own_package):
        install(package, folder)
    return folder


@pytest.fixture(scope="module")
def environment(target) -> dict[str, str]:
    path = os.pathsep.join(map(str, (target, ROOT)))
    strict = {"ARKASR_STRICT_PLUGINS": "1", "ARKASR_PLUGINS": "ensemble,skew_kl,template,mine,vllm"}
    return os.environ | strict | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, environment, own_package) -> dict[str, list[str]]:
    """Run the tests of all packages in one process. Return the result of each test by test module."""
    report = tmp_path_factory.mktemp("report") / "junit.xml"
    folders = [str(package / "tests") for package in (*PACKAGES, own_package) if package != VLLM]
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *folders], env=environment, capture_output=True, text=True
    )
    assert report.is_file(), done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        failed = [f"{case.get('name')}: {problem.get('message')}" for problem in case]
        found.setdefault(case.get("classname").split(".")[-1], []).append("; ".join(failed))
    return found


def test_packages_include_template_teacher_and_loss():
    assert {path.name for path in PACKAGES} >= {"arkasr-template", "arkasr-ensemble", "arkasr-skew-kl"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_package_uses_one_name_throughout(package):
    metadata = project(package)
    module = package.name.replace("-", "_")
    assert metadata["name"] == package.name and module.removeprefix("arkasr_") in metadata["entry-points"]["arkasr"]
    assert (package / f"{module}.py").is_file() or (package / module / "__init__.py").is_file()
    assert (package / "tests" / f"test_{module}.py").is_file()
    assert metadata["dependencies"][0] == "arkasr" and (len(metadata["dependencies"]) == 1 or package == VLLM)
    assert "arkasr.testing" in (package / f"tests/test_{module}.py").read_text()


@pytest.mark.parametrize("module", ["arkasr_ensemble", "arkasr_skew_kl", "arkasr_template", "arkasr_mine"])
def test_package_tests_pass(outcomes, module):
    results = outcomes[f"test_{module}"]
    assert len(results) >= 4 and [problem for problem in results if problem] == []


def test_packages_are_listed(environment, target):
    command = [sys.executable, "-m", "arkasr", "plugins", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows = {row["name"]: row for row in json.loads(done.stdout) if row["distribution"] != "arkasr"}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "ensemble": "teacher", "mine": "loss", "qwen3_asr_http": "teacher", "skew_kl": "loss",
        "template": "loss"}  # fmt: skip
    for name, row in rows.items():
        file = "arkasr_vllm/teacher.py" if name == "qwen3_asr_http" else f"arkasr_{name}.py"
        assert row["file"] == str(target / file) and row["error"] == "" and row["version"] == "0.1.0"


def test_listing_packages_does_not_import_torch(environment):
    code = "import sys; from arkasr.plugins.registry import listing; print(len(listing()) > 4, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_template_copy_does_not_mention_template(own_package):
    assert {path.name for path in own_package.rglob("*.*")} == {
        "README.md", "arkasr_mine.py", "pyproject.toml", "test_arkasr_mine.py"}  # fmt: skip
    for path in own_package.rglob("*.*"):
        assert "template" not in path.read_text().lower(), path
    assert "Make it yours" not in (own_package / "README.md").read_text()


@pytest.fixture
def loaded(target, monkeypatch):
    """Make the installed packages importable in this process."""
    monkeypatch.setenv("ARKASR_PLUGINS", "ensemble,skew_kl,template,vllm")
    monkeypatch.syspath_prepend(target)
    with fresh_plugins("arkasr_"):
        yield


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_readme_configuration_is_accepted(loaded, package):
    (text,) = blocks(package, "yaml")
    ((section, values),) = parse_yaml(text, "README.md").items()
    options = registry.check_plugin(KIND_OF[section], values["name"], values["options"])
    assert {key: getattr(options, key) for key in values["options"]} == values["options"]


def test_arkasr_does_not_name_packages():
    names = r"arkasr[_-](ensemble|skew[_-]kl|template)|\b(skew_kl|ensemble)\b"
    mentions = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in (ROOT / "arkasr").rglob("*.py")
        if (found := re.search(names, path.read_text()))
    ]
    assert mentions == []
