#!/usr/bin/env bash
# The one staged recipe. egs/<corpus>/run.sh calls it with `--corpus <corpus>` and the user's options;
# each stage is one `arkasr` verb. `--help` lists the stages and the options, `--dry_run true` the exact commands.
set -euf -o pipefail # -f: a star in an option stays a star
egs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=egs/options.sh
source "$egs/options.sh"
# shellcheck source=egs/cmd.sh
source "$egs/cmd.sh"

# name|kind|default|help. {scale} and {tag} are filled in later; tag is the scale, or scale-<name of corpus_dir>.
OPTIONS='corpus|word||folder of egs/ to work in (run.sh gives it)
stage|number|0|first stage to run
stop_stage|number|5|last stage to run; 6 exports the runs too
scale|mini/paper|mini|mini: small models on a spoken miniature corpus, for a CPU; paper: published sizes
corpus_dir|path|downloads/{scale}|an existing corpus; stage 0 is then skipped
datadir|path|data/{tag}|prepared cuts; {tag} is {scale}, or {scale}-<folder name> with --corpus_dir
expdir|path|exp/{tag}|checkpoints, hypotheses, RESULTS.md and figures
conf|path|conf/{scale}.yaml|the configuration: its sections, and the runs that overlay them
variants|text|base base_opd base_td_opd|runs to train and score (_td: teacher transcripts, _opd: distilled)
train_args|text||overrides of the configuration in stages 2 and 3: "section.key=value ..."
ngpu|number|1|processes a node, one a GPU; 1 uses a GPU if there is one, 0 keeps to the CPU
num_nodes|count|1|machines that train together; start run.sh on each of them
node_rank|number|0|which of them this is; the first, 0, runs the other stages as well
master_addr|word|localhost|host name of the first machine
master_port|number|29500|a free port of the first machine; the next is used too
cmd|local/ssh/slurm|local|what starts trainings: torchrun here, torchrun over ssh on all of --hostfile, or a Slurm job
hostfile|path||with --cmd ssh: "host" or "host slots=8" a line, this machine first
slurm_args|text||with --cmd slurm: options of sbatch: --slurm_args="--partition=gpu --time=24:00:00"
max_restarts|number|3|how often torchrun starts its processes again after one was killed or failed
grace|count|120|seconds that TERM or USR1 leave a training to save; it is killed after them
nj|count|2|parallel jobs in stage 1
python|command|python3|the Python that has arkasr; without it .venv of the checkout is tried too
dry_run|bool|false|true: print the exact commands and run nothing'

num_run=0 child='' signalled=0 asked='' hosts=() slots=()

usage() {
    cat <<'END'
Usage: ./run.sh [--option value]...     --stop_stage 4, --stop-stage 4 and --stop_stage=4 mean the same

Stages: 0 download, 1 prepare, 2 label (mini scale: after training the teacher), 3 train, 4 decode, 5 score, 6 export
        --stage 3 means: the data is ready, train, decode and score. Stage 6 runs with --stop_stage 6 only.

Options, defaults in brackets. Paths you give are relative to where you stand, defaults to the folder of run.sh.
END
    print_options
}

log() { # ESPnet's line: time (file:line:main) message, with the line of main that led here
    local depth=$((${#FUNCNAME[@]} - 2))
    printf '%(%Y-%m-%dT%H:%M:%S)T (recipe.sh:%s:main) %s\n' -1 "${BASH_LINENO[depth - 1]}" "$*"
}

fill_in() { # the defaults that depend on other options
    local tag=${opt[scale]} name value
    [[ ! -v given[corpus_dir] ]] || tag+=-$(basename "${opt[corpus_dir]}")
    for name in corpus_dir datadir expdir conf; do
        [[ ! -v given[$name] ]] || continue
        value=${opt[$name]//'{scale}'/${opt[scale]}}
        opt[$name]=${value//'{tag}'/$tag}
    done
}

check() { # refuse what cannot work, before anything runs
    local name
    ((opt[stage] <= opt[stop_stage] && opt[stage] <= 6)) ||
        die "no stage lies between --stage ${opt[stage]} and --stop_stage ${opt[stop_stage]}: stages go from 0 (download) to 6 (export)"
    check_cmd
    ((opt[node_rank] < opt[num_nodes])) || die "--node_rank ${opt[node_rank]} of --num_nodes ${opt[num_nodes]}: ranks count from 0"
    [[ -f ${opt[conf]} ]] || die "no configuration ${opt[conf]}: name one with --conf"
    [[ -n ${opt[variants]// /} ]] || die "--variants names no run"
    for name in ${opt[variants]}; do
        [[ -v given[conf] || $name =~ ^base(_td)?(_opd)?$ ]] ||
            die "--variants: no run '$name'; there are base, base_opd, base_td, base_td_opd (others need a --conf that holds them)"
    done
}

check_cmd() { # what --cmd needs, and what it has no use for
    local name
    processes=$((opt[ngpu] > 0 ? opt[ngpu] : 1))
    for name in hostfile=ssh slurm_args=slurm; do
        [[ ! -v given[${name%=*}] || ${opt[cmd]} == "${name#*=}" ]] || die "--${name%=*} goes with --cmd ${name#*=}"
    done
    [[ ${opt[cmd]} == local || ! -v given[node_rank] ]] || die "--node_rank goes with --cmd local"
    [[ ${opt[cmd]} == ssh ]] || return 0
    [[ -f ${opt[hostfile]} ]] || die "--cmd ssh needs --hostfile, a file with a host a line"
    read_hosts
    [[ ! -v given[num_nodes] ]] || ((opt[num_nodes] == ${#hosts[@]})) ||
        die "--num_nodes ${opt[num_nodes]}, but ${opt[hostfile]} names ${#hosts[@]}: leave it out"
    opt[num_nodes]=${#hosts[@]}
    [[ -v given[master_addr] ]] || opt[master_addr]=${hosts[0]#*@}
}

claim() { # what only a real run needs
    [[ ! -v given[corpus_dir] || -d ${opt[corpus_dir]} ]] || die "no folder ${opt[corpus_dir]}: --corpus_dir is to name the corpus"
    ((opt[num_nodes] == 1)) || [[ ${opt[cmd]} != local || -v given[master_addr] ]] ||
        die "--num_nodes ${opt[num_nodes]} needs --master_addr, the host name of the first machine"
    mkdir -p "${opt[expdir]}" || die "cannot write to ${opt[expdir]}: choose another folder with --expdir"
    # Two runs in one folder would write over each other. One that is being stopped gets a moment to go.
    exec {lock}>"${opt[expdir]}/.lock.${opt[node_rank]}"
    flock --wait 5 "$lock" || die "another run is at work in ${opt[expdir]}: wait for it, stop it, or choose another --expdir"
}

find_python() { # the first that has arkasr
    local python version
    local -a candidates=("${opt[python]}")
    [[ -v given[python] ]] || candidates+=("${egs%/*}/.venv/bin/python")
    for python in "${candidates[@]}"; do
        if version=$("$python" -m arkasr --version 2>/dev/null); then
            opt[python]=$python
            [[ ${opt[cmd]} != ssh ]] || opt[python]=$(command -v "$python") # there, the search path may be another
            log "$version of $(command -v "$python")"
            return
        fi
    done
    ${opt[dry_run]} || die "${opt[python]} has no arkasr: run 'make demo' or 'pip install -e .', or name another with --python"
}

run() { # run STAGE TITLE COMMAND...: one command of a stage
    local stage=$1 title=$2 status=0
    shift 2
    ((opt[stage] <= stage && stage <= opt[stop_stage])) || return 0
    log "Stage $stage: $title"
    num_run=$((num_run + 1))
    if ${opt[dry_run]}; then
        "${show-quoted}" "$@"
        return
    fi
    start "$@"
    await "${opt[grace]}" || status=$?
    child=''
    [[ -z ${makes-} ]] || pre_empted "$stage" "$title" "$status"
    ((signalled == 0)) || status=$signalled
    ((status == 0)) || failed "$stage" "$title" "$status"
}

pre_empted() { # a training has ended: because it is done, or by a signal, here or on another machine, and saved?
    local run=${makes%/final/*}
    if (($3 > 0)); then # so torchrun does when the signal went to it too, after its ranks have saved
        [[ -n $asked ]] || return 0
        local since=@$((EPOCHSECONDS - SECONDS + asked - 1))
        [[ -n $(find "$run/checkpoints" -name COMPLETE -newermt "$since" 2>/dev/null) ]] || return 0
    fi
    ls "$run" >/dev/null 2>&1 || true # a network file system looks anew
    ((signalled > 0)) || [[ ! -f $makes ]] || return 0
    log "Stage $1: $2: pre-empted; the same command carries on: $again"
    exit 0
}

failed() {
    log "Stage $1: $2: ended with exit status $3"
    echo "Finished work is kept. The same command carries on; to start at this stage: $again --stage $1" >&2
    exit "$3"
}

# shellcheck disable=SC2317  # the traps call it
on_signal() { # on_signal NAME STATUS
    signalled=$2
    [[ -n $child ]] || exit "$2"
    if [[ -n ${tends-} && $1 == @(TERM|USR1) ]]; then
        asked=${asked:-$SECONDS} # the training saves first
    elif [[ $1 != INT || ! -t 0 ]]; then # Ctrl-C at a terminal has reached the child already
        kill -s "${1/USR1/TERM}" "$child" 2>/dev/null || true
    fi
}

on_first_node() { # like run, for what one machine does for all
    if ((opt[node_rank] == 0)); then
        run "$@"
    elif ((opt[stage] <= $1 && $1 <= opt[stop_stage])); then
        log "Skip stage $1: $2: the first machine does it"
    fi
}

with_needs() { # the variants, each once and after the runs that it starts from
    local variant name needed
    local -A seen=()
    for variant in ${opt[variants]}; do
        case $variant in
            base_opd | base_td) needed="base $variant" ;;
            base_td_opd) needed="base base_td $variant" ;;
            *) needed=$variant ;;
        esac
        for name in $needed; do
            [[ -v seen[$name] ]] || echo "$name"
            seen[$name]=1
        done
    done
}

main() {
    parse_options "$@"
    [[ -n ${opt[corpus]} && -f $egs/${opt[corpus]}/corpus.yaml ]] ||
        die "no recipe '${opt[corpus]}': call egs/librispeech/run.sh or one beside it"
    cd "$egs/${opt[corpus]}"
    fill_in
    check
    again=$(quoted "$egs/${opt[corpus]}/run.sh" "${@:3}") # run.sh wrote the first two
    log "$again"
    export ARKASR_RECIPE=$again # stands in each run.json and so in RESULTS.md
    find_python
    if ${opt[dry_run]}; then quoted cd "$PWD"; else claim; fi
    trap 'on_signal INT 130' INT
    trap 'on_signal TERM 143' TERM
    trap 'on_signal HUP 129' HUP
    trap 'on_signal USR1 138' USR1

    local name needed runs=${opt[variants]}
    local -a python=("${opt[python]}") overrides dirs=(--expdir "${opt[expdir]}" --datadir "${opt[datadir]}")
    ((opt[ngpu] > 0)) || python=(env CUDA_VISIBLE_DEVICES= "${opt[python]}")
    local -a arkasr=("${python[@]}" -m arkasr) source=(corpus.yaml --scale "${opt[scale]}" --corpus_dir "${opt[corpus_dir]}")
    read -ra overrides <<<"${opt[train_args]}"
    needed=$(with_needs)

    if [[ -v given[corpus_dir] ]]; then
        ((opt[stage] > 0)) || log "Skip stage 0: Download: --corpus_dir names an existing corpus"
    else
        on_first_node 0 "Download" "${arkasr[@]}" download "${source[@]}"
    fi
    on_first_node 1 "Prepare" "${arkasr[@]}" prepare "${source[@]}" --datadir "${opt[datadir]}" --nj "${opt[nj]}"
    # The teacher of the mini scale is made here. A run's name says what it needs of a teacher.
    [[ ${opt[scale]} != mini || $needed != *_@(td|opd)* ]] || train 2 teacher
    [[ $needed != *_td* ]] || on_first_node 2 "Label" "${arkasr[@]}" label "${opt[conf]}" "${dirs[@]}" "${overrides[@]}"
    for name in $needed; do train 3 "$name"; done
    [[ $needed != *_opd* ]] || runs="teacher $runs"
    on_first_node 4 "Decode" "${arkasr[@]}" decode "${dirs[@]}" --runs "$runs"
    on_first_node 5 "Score" "${arkasr[@]}" score "${dirs[@]}" --runs "$runs"
    on_first_node 6 "Export" "${arkasr[@]}" export "${dirs[@]}" --runs "${opt[variants]}"

    ((num_run > 0)) || die "nothing to run from --stage ${opt[stage]} to --stop_stage ${opt[stop_stage]}: all of it was skipped"
    if ${opt[dry_run]}; then
        log "Dry run: nothing was run"
        return
    fi
    if ((opt[stop_stage] >= 5 && opt[node_rank] == 0)); then
        log "Results: $(realpath "${opt[expdir]}")/RESULTS.md"
        log "Figures: $(realpath "${opt[expdir]}")/figures"
    fi
    log "Successfully finished. [elapsed=${SECONDS}s]"
}

main "$@"; exit # in one line: bash would go on to read a file that was edited meanwhile
