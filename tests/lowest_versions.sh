#!/usr/bin/env bash
# Runs the fast tests with the oldest releases that pyproject.toml allows, in .venv-lowest; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv-lowest
if [[ ! -e $venv/.installed || pyproject.toml -nt $venv/.installed ]]; then
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check uv
    "$venv/bin/uv" pip install -q --python "$venv/bin/python" --resolution lowest-direct -e '.[test]' -e plugins/arkasr-vllm
    touch "$venv/.installed"
fi
"$venv/bin/uv" pip list --python "$venv/bin/python" | grep -E '^(torch|torchaudio|transformers|lhotse|numpy|pluggy) '
"$venv/bin/python" -m pytest -m 'not slow and not distributed and not e2e' "$@"
