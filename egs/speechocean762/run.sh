#!/usr/bin/env bash
# speechocean762 (English of learners, WER): train Ark-ASR with a Whisper encoder by distillation. `./run.sh --help` lists options.
set -eu # only what every shell has, so that `sh run.sh` works too
here=$(dirname "$(readlink -f "$0")")
# sbatch runs a copy of this file in another folder. Slurm knows the original.
[ -f "$here/../recipe.sh" ] || here=$(scontrol show job "${SLURM_JOB_ID-}" 2>/dev/null | sed -n 's|^ *Command=||p')
here=${here%%/run.sh*}
[ -f "$here/../recipe.sh" ] || here=${SLURM_SUBMIT_DIR-}
[ -f "$here/../recipe.sh" ] || { echo "run.sh: error: $0 has no recipe.sh in the folder above: start run.sh in its own folder under egs/" >&2; exit 2; }
exec bash "$here/../recipe.sh" --corpus "${here##*/}" "$@"
