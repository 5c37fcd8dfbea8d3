#!/usr/bin/env bash
# Run all benchmarks of a GPU and print one table. `benchmarks/gpu.sh --help` lists sections, columns and options.
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname "${BASH_SOURCE[0]}")/gpu.py" "$@"
