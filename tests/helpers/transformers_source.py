"""transformers' own test mixins, imported from an unpacked source distribution or a checkout of its repository.

The source distribution has the mixins of models, configurations and processors, but not every module that they import.
An absent module gets a stand-in with the names that are imported from it, so a source distribution adds no tests of
`generate` and no tests of the exporters. A checkout has all modules, and adds them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
import unittest
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import soundfile
import transformers

VARIABLE, PACKAGE = "ARKASR_TRANSFORMERS_SOURCE", "transformers_own_tests"


def missing() -> str:
    """Return why the mixins cannot be used, or an empty string."""
    source = os.environ.get(VARIABLE, "")
    if not source:
        return f"{VARIABLE} is not set to the unpacked source distribution of transformers (docs/transformers.md)"
    if not (Path(source) / "tests/test_modeling_common.py").is_file():
        return f"{VARIABLE}={source}: no tests/test_modeling_common.py there"
    if f'__version__ = "{transformers.__version__}"' not in (Path(source) / "src/transformers/__init__.py").read_text():
        return f"{VARIABLE}={source}: not the version that is installed, {transformers.__version__}"
    absent = [name for name in ("parameterized", "PIL") if importlib.util.find_spec(name) is None]
    return f"these tests need {', '.join(absent)}; install parameterized and pillow" if absent else ""


class _Nothing:
    """Stands for a mixin of tests whose module is absent."""


SOUNDS = tempfile.TemporaryDirectory(prefix="arkasr-")  # removed when Python ends


def _local_file(url: str) -> str:
    """Stand for the download of a sound: write a second of noise under its name."""
    path = Path(SOUNDS.name, Path(url).stem + ".wav")
    if "audio" in url:
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    return str(path)


STAND_INS: dict[str, dict[str, Any]] = {
    "generation.test_utils": {"GenerationTesterMixin": _Nothing},
    "exporters.test_export": {"ExportTesterMixin": _Nothing},
    "utils.test_configuration_utils": {"config_common_kwargs": {}},  # read for configurations without parts only
}


@lru_cache(maxsize=1)
def mixins() -> SimpleNamespace:
    """Import the mixins. Call it only if `missing()` is empty.

    Returns:
        `ModelTesterMixin`, `GenerationTesterMixin`, `ConfigTester`, `ProcessorTesterMixin`, `floats_tensor`,
        `ids_tensor`, and `modeling`, the module of the first one.
    """
    tests = Path(os.environ[VARIABLE]) / "tests"
    _module(PACKAGE, path=[str(tests)])
    for name, content in STAND_INS.items():
        if not (tests / f"{name.replace('.', '/')}.py").is_file():
            parent = name.split(".")[0]
            _module(f"{PACKAGE}.{parent}", path=[str(tests / parent)])
            _module(f"{PACKAGE}.{name}", **content)
    _module("fetch_hub_objects_for_ci", url_to_local_path=_local_file)
    names = {
        "test_modeling_common": ("ModelTesterMixin", "GenerationTesterMixin", "floats_tensor", "ids_tensor"),
        "test_configuration_common": ("ConfigTester",),
        "test_processing_common": ("ProcessorTesterMixin",),
    }
    found = {}
    with patch("transformers.utils.direct_transformers_import", lambda path: transformers):  # needs a checkout
        for module, wanted in names.items():
            loaded = importlib.import_module(f"{PACKAGE}.{module}")
            found |= {name: getattr(loaded, name) for name in wanted}
    return SimpleNamespace(**found, modeling=sys.modules[f"{PACKAGE}.test_modeling_common"])


def _module(name: str, path: list[str] | None = None, **content: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    if path is not None:
        module.__path__ = path
    sys.modules[name] = module
    return module


def skipped(**reasons: str) -> dict[str, Any]:
    """Return replacements of tests that do not apply, for the body of a test class."""
    return {name: unittest.skip(reason)(lambda self: None) for name, reason in reasons.items()}
