#!/usr/bin/env bash
# The staged recipe of all corpora. egs/<corpus>/run.sh calls it with `--corpus <corpus>` and the user's options.
# Each stage is one `arkasr` verb. `--help` lists stages and options, `--dry_run true` prints the exact commands.
[ -n "${BASH_VERSION-}" ] || exec bash "$0" "$@" # started as `sh recipe.sh`
set -euf -o pipefail # -f: no globbing, so that a star in an option stays a star
egs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=egs/options.sh
source "$egs/options.sh"
# shellcheck source=egs/cmd.sh
source "$egs/cmd.sh"
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) || die "bash $BASH_VERSION is too old: the recipe needs bash 5.1 or later"

# name|kind|default|help. fill_in replaces {scale} and {tag}; {tag} is described in usage.
OPTIONS='corpus|word||folder under egs/ that holds the recipe; run.sh sets it
stage|number|0|first stage to run
stop_stage|number|5|last stage to run
scale|mini/study/paper|mini|mini: small synthetic corpus; study: larger, with controls; paper
corpus_dir|path|downloads/{scale}|folder of an existing corpus; skips stage 0
datadir|path|data/{tag}|folder of the prepared cuts
expdir|path|exp/{tag}|folder of checkpoints, hypotheses, RESULTS.md and figures
conf|path|conf/{scale}.yaml|configuration file with the settings of all runs
variants|text||runs to train and score (default: those of the scale, listed above)
skip_train|bool|false|true: skip stages 2 and 3, decode and score what is trained
checkpoint|models||more models to decode and score: "[NAME=]FOLDER_OR_HUB_ID,[NAME=]PLUGIN:PATH"
test_sets|sets||decode and score only "NAME=PATH ...": manifests, tables, data folders
train_args|text||configuration overrides in stages 2 and 3: "section.key=value ..."
ngpu|number|1|processes per machine, one per GPU (CPU if there is none); 0: one on the CPU
num_nodes|count|1|number of machines of stages 2 to 4
node_rank|number|0|index of this machine; machine 0 also runs the other stages
master_addr|word|localhost|host name of machine 0
master_port|number|29500|free port of machine 0; the next port is used too
cmd|local/ssh/slurm|local|launcher: local (torchrun), ssh (torchrun per host), slurm (stages 2 to 4)
hostfile|path||for --cmd ssh: a file with "host" or "host slots=8" per line, this one first
slurm_args|text||for --cmd slurm: sbatch options, such as "--partition=gpu --time=24:00:00"
max_restarts|number|3|restarts per run of stages 2 to 4 after a process failed or was killed
grace|count|120|seconds to save after TERM or USR1, before the processes are killed
nj|count|2|parallel processes in stage 1
shar|bool|false|true: copy the audio into --datadir as tar files (Lhotse Shar)
python|command|python3|Python that has arkasr; .venv of the checkout is tried next
dry_run|bool|false|true: print the commands and run nothing'

# The default of --variants by scale. mini and study have controls, which train Base on without distillation.
declare -A default_runs=(
    [mini]='base base_steps base_opd base_td_opd'
    [study]='base base_steps base_audio base_td base_td_audio base_opd base_td_opd base_opd_labelled topline'
    [paper]='base base_opd base_td_opd'
)

# num_run: commands so far. child: process id of the running command. signalled: exit status for the last signal.
# stop_time: value of SECONDS when stages 2 to 4 were asked to save and end. hosts, slots: lines of --hostfile. tag: see usage.
num_run=0 child='' signalled=0 stop_time='' hosts=() slots=() tag=''

usage() {
    cat <<'END'
Usage: ./run.sh [--option value]...     --stop_stage 4, --stop-stage 4 and --stop_stage=4 are equal

Stages  0 download, 1 prepare, 2 label (at scales mini and study: after training the teacher),
        3 train, 4 decode, 5 score, 6 export (only with --stop_stage 6)
        --stage 3 skips data preparation and labelling: train, decode and score.
Runs    base: supervised; base_opd: base, then distilled; base_td: base, then trained on teacher
        transcripts; base_td_opd: base_td, then distilled; base_steps: base, then supervised for as
        many steps as base_opd (a control). Scale study has more, see conf/study.yaml.
        mini: base base_steps base_opd base_td_opd; paper: base base_opd base_td_opd; study: all.
        Other names need a --conf that has them.

Options, with defaults in brackets. Paths that you write are relative to your working directory,
default paths to the folder of run.sh. {tag} is {scale}, or {scale}-<folder name> with --corpus_dir.
END
    print_options
}

log() { # print one line in ESPnet's format: time (file:line:main) message, with the line number in main
    local depth=$((${#FUNCNAME[@]} - 2))
    printf '%(%Y-%m-%dT%H:%M:%S)T (recipe.sh:%s:main) %s\n' -1 "${BASH_LINENO[depth - 1]}" "$*"
}

fill_in() { # fill in the defaults that depend on other options
    local name value
    tag=${opt[scale]}
    [[ ! -v given[corpus_dir] ]] || tag+=-$(basename "${opt[corpus_dir]}")
    for name in corpus_dir datadir expdir conf; do
        [[ ! -v given[$name] ]] || continue
        value=${opt[$name]//'{scale}'/${opt[scale]}}
        opt[$name]=${value//'{tag}'/$tag}
    done
    local runs=${opt[scale]}
    [[ $runs != mini || ! -v given[conf] ]] || runs=paper # your own file need not have the control
    [[ -v given[variants] ]] || opt[variants]=${default_runs[$runs]}
}

check() { # refuse invalid options before anything runs
    local name
    ((opt[stage] <= opt[stop_stage] && opt[stage] <= 6)) ||
        die "no stage from --stage ${opt[stage]} to --stop_stage ${opt[stop_stage]}: stages are numbered from 0 (download) to 6 (export)"
    check_cmd
    ((opt[node_rank] < opt[num_nodes])) || die "--node_rank ${opt[node_rank]} must be below --num_nodes ${opt[num_nodes]}: ranks start at 0"
    [[ -f ${opt[conf]} ]] || die "configuration file ${opt[conf]} does not exist: set --conf"
    ((0 < opt[master_port] && opt[master_port] < 65535)) ||
        die "--master_port ${opt[master_port]} must be from 1 to 65534: the next port is used too"
    [[ -n ${opt[variants]// /} ]] || die "--variants is empty: name at least one run"
    for name in ${opt[variants]}; do
        [[ -v given[conf] || " base_td ${default_runs[${opt[scale]}]} " == *" $name "* ]] ||
            die "--variants: unknown run '$name'; at scale ${opt[scale]} there are ${default_runs[${opt[scale]}]} and base_td (others need a --conf that has them)"
    done
}

check_cmd() { # check the options that belong to one value of --cmd
    local name
    processes=$((opt[ngpu] > 0 ? opt[ngpu] : 1))
    for name in hostfile=ssh slurm_args=slurm; do
        [[ ! -v given[${name%=*}] || ${opt[cmd]} == "${name#*=}" ]] || die "--${name%=*} needs --cmd ${name#*=}"
    done
    [[ ${opt[cmd]} == local || ! -v given[node_rank] ]] || die "--node_rank needs --cmd local"
    [[ ${opt[cmd]} == ssh ]] || return 0
    [[ -f ${opt[hostfile]} ]] || die "--cmd ssh needs --hostfile, a file with one host per line${opt[hostfile]:+; ${opt[hostfile]} does not exist}"
    read_hosts
    [[ ! -v given[num_nodes] ]] || ((opt[num_nodes] == ${#hosts[@]})) ||
        die "--num_nodes is ${opt[num_nodes]}, but ${opt[hostfile]} names ${#hosts[@]} hosts: omit --num_nodes"
    opt[num_nodes]=${#hosts[@]}
    [[ -v given[master_addr] ]] || opt[master_addr]=${hosts[0]#*@}
}

claim() { # check what only a real run needs, and lock --expdir
    [[ ! -v given[corpus_dir] || -e ${opt[corpus_dir]} ]] || die "--corpus_dir ${opt[corpus_dir]} does not exist: name the folder of the corpus, or one table"
    ((opt[num_nodes] == 1)) || [[ ${opt[cmd]} != local || -v given[master_addr] ]] ||
        die "--num_nodes ${opt[num_nodes]} needs --master_addr, the host name of machine 0"
    check_data
    mkdir -p "${opt[expdir]}" 2>/dev/null || die "cannot create --expdir ${opt[expdir]}: choose another folder"
    # Two runs in one folder would overwrite each other's files. The wait lets a run end that is being stopped.
    { exec {lock}>"${opt[expdir]}/.lock.${opt[node_rank]}"; } 2>/dev/null || die "cannot write to --expdir ${opt[expdir]}: choose another folder"
    flock --wait 5 "$lock" || {
        (($? == 1)) || die "cannot lock --expdir ${opt[expdir]}: its file system has no locks; choose another folder"
        die "another run is using ${opt[expdir]}: wait for it, stop it, or choose another --expdir"
    }
    [[ ${opt[cmd]} != slurm ]] || command -v sbatch >/dev/null || die "--cmd slurm needs sbatch: run it on a machine of a Slurm cluster"
}

check_data() { # without stage 1, refuse data of another corpus folder with the same name
    local found
    [[ -v given[corpus_dir] && -f ${opt[datadir]}/corpus.json ]] && ((opt[stage] > 1)) || return 0
    found=$(sed -n 's/^ "corpus_dir": "\(.*\)",$/\1/p' "${opt[datadir]}/corpus.json")
    [[ -z $found || $found == "${opt[corpus_dir]}" ]] ||
        die "--datadir ${opt[datadir]} was prepared from $found, not from ${opt[corpus_dir]}: set --datadir and --expdir to other folders, or start at --stage 1 if the corpus was moved"
}

find_python() { # set --python to the first candidate that has arkasr
    local python version
    local -a candidates=("${opt[python]}")
    [[ -v given[python] ]] || candidates+=("${egs%/*}/.venv/bin/python")
    for python in "${candidates[@]}"; do
        if version=$("$python" -m arkasr --version 2>/dev/null); then
            opt[python]=$python
            [[ ${opt[cmd]} != ssh ]] || opt[python]=$(command -v "$python") # other hosts may have another PATH
            log "$version of $(command -v "$python")"
            return
        fi
    done
    ${opt[dry_run]} || die "${opt[python]} cannot import arkasr: run 'make demo' or 'pip install -e .', or set --python"
}

run() { # run STAGE TITLE COMMAND...: run one command of a stage
    local stage=$1 title=$2 status=0
    shift 2
    ((opt[stage] <= stage && stage <= opt[stop_stage])) || return 0
    log "Stage $stage: $title"
    num_run=$((num_run + 1))
    if ${opt[dry_run]}; then
        "${show-quoted}" "$@"
        return
    fi
    if [[ -n ${unfinished-} ]]; then check_ports "$@" || exit; fi
    start "$@"
    await "${opt[grace]}" || status=$?
    end_watcher
    child=''
    [[ -z ${unfinished-} ]] || check_pre_empted "$stage" "$title" "$status"
    ((signalled == 0)) || status=$signalled
    ((status == 0)) || failed "$stage" "$title" "$status"
}

check_pre_empted() { # check_pre_empted STAGE TITLE STATUS: exit with 0 if a signal ended it and its work is saved
    local run=${final_config%/final/*}
    if (($3 > 0)); then # torchrun fails if the signal reached it too, although its ranks saved
        [[ -n $stop_time ]] || return 0
        local since=@$((EPOCHSECONDS - SECONDS + stop_time - 1))
        [[ -z $run || -n $(find "$run/checkpoints" -name COMPLETE -newermt "$since" 2>/dev/null) ]] || return 0
    fi
    ls -a "${run:-${opt[expdir]}}" >/dev/null 2>&1 || true # refreshes the cache of a network file system
    # The signal may have reached another machine only.
    ((signalled > 0)) || eval "[[ $unfinished ]]" || return 0
    log "Stage $1: $2: pre-empted; the same command resumes: $command_line"
    exit 0
}

failed() {
    log "Stage $1: $2: failed with exit status $3"
    local advice="Finished work is kept. The same command resumes."
    (($3 >= 128)) || advice="If a message above names a cause, remove it first. $advice" # killed by a signal
    (($3 != 2)) || advice="Correct what the message above names. Finished work is kept." # it would fail again
    echo "$advice To start at this stage: $command_line --stage $1" >&2
    exit "$3"
}

# shellcheck disable=SC2317,SC2329  # the traps call it
on_signal() { # on_signal NAME STATUS
    signalled=$2
    [[ -n $child ]] || exit "$2"
    if [[ -n ${saves_on_signal-} && $1 == @(TERM|USR1) ]]; then
        stop_time=${stop_time:-$SECONDS} # `await` has the training save and end
    elif [[ $1 != INT || ! -t 0 ]]; then # a terminal sends Ctrl-C to the child too
        kill -s "${1/USR1/TERM}" "$child" 2>/dev/null || true
    fi
}

on_first_node() { # like run, for commands that only machine 0 runs
    if ((opt[node_rank] == 0)); then
        run "$@"
    elif ((opt[stage] <= $1 && $1 <= opt[stop_stage])); then
        log "Skip stage $1: $2: machine 0 runs it"
    fi
}

rows() { # fill the array `rows` with the words of stages 4 and 5 that name models and test sets
    local -a models sets
    IFS=, read -ra models <<<"${opt[checkpoint]}"
    read -ra sets <<<"${opt[test_sets]}"
    rows=()
    [[ -z ${1// /} ]] || rows+=(--runs "$1")
    [[ -z ${opt[checkpoint]} ]] || rows+=(--checkpoint "${models[@]}")
    [[ -z ${opt[test_sets]} ]] || rows+=(--test_sets "${sets[@]}")
    ((opt[stage] > 5 || opt[stop_stage] < 4)) || [[ -n ${1// /}${opt[checkpoint]} ]] ||
        die "--skip_train true: none of the runs ${opt[variants]} is trained in ${opt[expdir]}: name models with --checkpoint, or train"
}

trained() { # print the variants that are trained, or all of them if the user named them
    local name
    local -a names=()
    for name in ${opt[variants]}; do
        [[ ! -v given[variants] && ! -f ${opt[expdir]}/$name/final/config.json ]] || names+=("$name")
    done
    echo "${names[*]}"
}

with_parents() { # print the variants, each one once and after the runs that it starts from
    local variant name needed
    local -A seen=()
    for variant in ${opt[variants]}; do
        case $variant in
            base_opd | base_td | base_steps | base_audio | base_opd_labelled | topline) needed="base $variant" ;;
            base_td_opd | base_td_audio) needed="base base_td $variant" ;;
            *) needed=$variant ;;
        esac
        for name in $needed; do
            [[ -v seen[$name] ]] || echo "$name"
            seen[$name]=1
        done
    done
}

prepare_members() { # stages 0 and 1 of the corpora of a mix, in the folders of their own recipes
    local name recipe folder
    while read -r name recipe <&3; do
        recipe=$(realpath -ms -- "$PWD/${recipe%/corpus.yaml}") # the paths that the member's own run.sh uses
        folder=$recipe/downloads/${opt[scale]}
        if [[ -v given[corpus_dir] ]]; then
            folder=${opt[corpus_dir]}/$name
            ((opt[stage] > 0)) || log "Skip stage 0: Download $name: --corpus_dir names an existing corpus"
        else
            on_first_node 0 "Download $name" "${arkasr[@]}" download "$recipe/corpus.yaml" --scale "${opt[scale]}" --corpus_dir "$folder"
        fi
        on_first_node 1 "Prepare $name" "${arkasr[@]}" prepare "$recipe/corpus.yaml" --scale "${opt[scale]}" --corpus_dir "$folder" \
            --datadir "$egs/$name/data/$tag" --nj "${opt[nj]}" "${shar[@]}"
    done 3< <(sed -n '/^members:/,/^[a-z]*:$/s/^  *\([A-Za-z0-9_.-]*\): *\([^ #]*\).*/\1 \2/p' corpus.yaml)
}

main() {
    local name
    for name in flock realpath setpriv stdbuf; do
        command -v "$name" >/dev/null || die "the command $name is missing: install GNU coreutils and util-linux"
    done
    parse_options "$@"
    [[ -n ${opt[corpus]} && -f $egs/${opt[corpus]}/corpus.yaml ]] ||
        die "no recipe '${opt[corpus]}': call run.sh in a folder under egs/, such as egs/librispeech/run.sh"
    cd "$egs/${opt[corpus]}"
    fill_in
    check
    command_line=$(quoted "$egs/${opt[corpus]}/run.sh" "${@:3}") # run.sh added the first two arguments
    log "$command_line"
    export ARKASR_RECIPE=$command_line # written to run.json and RESULTS.md
    find_python
    if ${opt[dry_run]}; then quoted cd "$PWD"; else claim; fi
    trap 'on_signal INT 130' INT
    trap 'on_signal TERM 143' TERM
    trap 'on_signal HUP 129' HUP
    trap 'on_signal USR1 138' USR1

    local needed runs=${opt[variants]}
    local -a python=("${opt[python]}") overrides dirs=(--expdir "${opt[expdir]}" --datadir "${opt[datadir]}")
    ((opt[ngpu] > 0)) || python=(env CUDA_VISIBLE_DEVICES= "${opt[python]}")
    local -a arkasr=("${python[@]}" -m arkasr) source=(corpus.yaml --scale "${opt[scale]}" --corpus_dir "${opt[corpus_dir]}")
    local -a shar=()
    ! ${opt[shar]} || shar=(--shar)
    read -ra overrides <<<"${opt[train_args]}"
    if ${opt[skip_train]}; then needed='' runs=$(trained); else needed=$(with_parents); fi
    local exported=$runs
    local -a rows
    [[ $runs != *_opd* ]] || runs="teacher $runs"
    rows "$runs"

    if grep -q '^layout: mix' corpus.yaml; then
        prepare_members
        source=("${source[@]:0:4}" "../{member}/data/$tag") # a mix is prepared from the data of its members
    elif [[ -v given[corpus_dir] ]]; then
        ((opt[stage] > 0)) || log "Skip stage 0: Download: --corpus_dir names an existing corpus"
    else
        on_first_node 0 "Download" "${arkasr[@]}" download "${source[@]}"
    fi
    on_first_node 1 "Prepare" "${arkasr[@]}" prepare "${source[@]}" --datadir "${opt[datadir]}" --nj "${opt[nj]}" "${shar[@]}"
    # Scales mini and study train their teacher here. The names of the runs show whether they need one.
    [[ ${opt[scale]} == paper || $needed != *_@(td|opd)* ]] || train 2 teacher
    [[ $needed != *_td* ]] ||
        transcribe 2 "Label" label "${opt[conf]}" "${dirs[@]}" "${overrides[@]}"
    for name in $needed; do train 3 "$name"; done
    transcribe 4 "Decode" decode "${dirs[@]}" "${rows[@]}"
    on_first_node 5 "Score" "${arkasr[@]}" score "${dirs[@]}" "${rows[@]}"
    on_first_node 6 "Export" "${arkasr[@]}" export "${dirs[@]}" --runs "$exported"

    ((num_run > 0)) || die "nothing to run from --stage ${opt[stage]} to --stop_stage ${opt[stop_stage]}: all stages were skipped"
    if ${opt[dry_run]}; then
        log "Dry run: nothing was run"
        return
    fi
    if ((opt[stop_stage] >= 5 && opt[node_rank] == 0)); then
        log "Results: $(realpath "${opt[expdir]}")/RESULTS.md"
        log "Figures: $(realpath "${opt[expdir]}")/figures"
        log "Report: $(realpath "${opt[expdir]}")/report.html"
    fi
    log "Successfully finished. [elapsed=${SECONDS}s]"
}

main "$@"; exit # on one line, because bash would continue to read a file that was edited during the run
