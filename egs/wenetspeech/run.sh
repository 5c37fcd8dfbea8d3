#!/usr/bin/env bash
# WenetSpeech (Mandarin, CER): train Ark-ASR by distillation from Qwen3-ASR. `./run.sh --help` lists stages and options.
set -euo pipefail
exec "$(dirname "$(readlink -f "$0")")/../recipe.sh" --corpus wenetspeech "$@"
