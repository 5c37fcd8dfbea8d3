#!/usr/bin/env bash
# How a training is started (--cmd): by torchrun on this machine, over ssh on the hosts of a file, or as a Slurm job.
# recipe.sh sources it for this; on the machines of the last two one of its verbs runs, below.
# shellcheck disable=SC2034,SC2154  # recipe.sh and this file fill each other's variables

train() { # train STAGE RUN: one run of the configuration
    local makes=${opt[expdir]}/$2/final/config.json show=quoted tends=''
    local -a launch elastic=(--max-restarts "${opt[max_restarts]}" --shutdown-timeout "${opt[grace]}" --no-python --)
    local -a words=("${python[@]}" -m arkasr train "${opt[conf]}" --run "$2" "${dirs[@]}" "${overrides[@]}")
    "launch_${opt[cmd]}" "$2"
    run "$1" "Train $2" "${launch[@]}"
}

torchrun() { # torchrun PROCESSES [OPTION]...: fill `launch` with the command of one of several machines
    # The static rendezvous alone honours --node-rank: the first machine is then the one that logs. Ranks that are
    # started again need a store without the addresses of those before them, so rank 0 holds one at the next port.
    launch=("${python[@]}" -m torch.distributed.run --nnodes "${opt[num_nodes]}" --nproc-per-node "$1" "${@:2}"
        --master-port "${opt[master_port]}" "${elastic[@]}"
        env "MASTER_PORT=$((opt[master_port] + 1))" TORCHELASTIC_USE_AGENT_STORE=False "${words[@]}")
}

launch_local() { # torchrun where a run has several processes
    tends=1 # signals to save go from this script to the ranks
    if ((opt[num_nodes] > 1)); then
        torchrun "$processes" --node-rank "${opt[node_rank]}" --master-addr "${opt[master_addr]}"
    elif ((processes > 1)); then
        # As above: a new store, at a port that is free, each time that the ranks are started.
        launch=(env TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 "${python[@]}" -m torch.distributed.run --standalone
            --local-addr localhost --nproc-per-node "$processes" "${elastic[@]}" "${words[@]}")
    else
        launch=("${words[@]}")
    fi
}

launch_ssh() { # torchrun on each host of --hostfile, the first of which is the rendezvous
    local -a each=() environment=()
    local rank name
    # A login by ssh knows nothing of these. No tokens: command lines are seen by everyone.
    for name in $(compgen -e); do
        [[ ! $name =~ ^(ARKASR_.*|PYTHONPATH|OMP_NUM_THREADS|CUDA_.*|NCCL_.*|GLOO_.*|TORCH_.*|HF_HOME|HF_HUB_OFFLINE)$ ]] ||
            environment+=("$name=${!name}")
    done
    for rank in "${!hosts[@]}"; do
        torchrun "${slots[rank]}" --node-rank "$rank" --master-addr "${opt[master_addr]}"
        launch=(env "${environment[@]}" bash "$egs/cmd.sh" remote "${opt[grace]}" "${launch[@]}")
        each+=("${hosts[rank]}" "cd $(quoted "$PWD") && exec $(quoted "${launch[@]}")")
    done
    launch=(bash "$egs/cmd.sh" over_ssh "${each[@]}") show=show_hosts
}

launch_slurm() { # a job that starts torchrun on each of its nodes
    torchrun "$processes"
    launch=(bash "$egs/cmd.sh" job "${opt[expdir]}/slurm/$1.sh" "$(job_script "$1")") show=show_job
}

job_script() { # job_script RUN: the text of the sbatch file
    local gpus=''
    ((opt[ngpu] == 0)) || gpus=" --gpus-per-node=${opt[ngpu]}"
    cat <<END
#!/usr/bin/env bash
# Written by recipe.sh. Pre-empted, or ${opt[grace]} s before its time is up, the job saves and goes back to the queue.
#SBATCH --job-name=arkasr-$1 --nodes=${opt[num_nodes]} --ntasks-per-node=1$gpus
#SBATCH --chdir=$(quoted "$PWD")
#SBATCH --output=$(quoted "$(realpath -m "${opt[expdir]}")/slurm/$1-%j.log") --open-mode=append
#SBATCH --requeue --signal=B:USR1@${opt[grace]} ${opt[slurm_args]}
PET_MASTER_ADDR=\$(scontrol show hostnames "\$SLURM_JOB_NODELIST" | head -n 1) # torchrun's --master-addr
export PET_MASTER_ADDR ARKASR_RECIPE=${ARKASR_RECIPE@Q}
srun --input=none --kill-on-bad-exit=1 bash -c 'PET_NODE_RANK=\$SLURM_PROCID exec "\$@"' _ \\
    $(quoted bash "$egs/cmd.sh" attend "${opt[grace]}" "${launch[@]}") &
step=\$! asked='' status=0
trap 'asked=1; kill -USR1 "\$step"' USR1
while true; do
    wait "\$step" && status=0 || status=\$?
    kill -0 "\$step" 2>/dev/null || break
done
if [[ -n \$asked && ! -f $(quoted "$makes") ]]; then scontrol requeue "\$SLURM_JOB_ID"; fi
exit "\$status"
END
}

show_hosts() { # for --dry_run: what runs on each host
    shift 3
    while (($#)); do
        quoted ssh "$1" "$2"
        shift 2
    done
}

show_job() { # for --dry_run: the sbatch file
    echo "$5"
    quoted sbatch --wait "$4"
}

read_hosts() { # fill hosts and slots (processes) from --hostfile: `host` or `host slots=N` a line
    local line host slot more
    while read -r line || [[ -n $line ]]; do
        read -r host slot more <<<"${line%%#*}"
        [[ -n $host ]] || continue
        [[ $host =~ ^[A-Za-z0-9_.:@][A-Za-z0-9_.:@-]*$ && ${slot:-slots=1} =~ ^slots=[1-9][0-9]*$ && -z $more ]] ||
            die "${opt[hostfile]}: '$line' is not 'host' or 'host slots=8'"
        slot=${slot#slots=}
        hosts+=("$host") slots+=("${slot:-$processes}")
    done <"${opt[hostfile]}"
    ((${#hosts[@]} > 0)) || die "${opt[hostfile]} names no host"
}

start() { # start COMMAND...: in the background, as $child; it goes with this script even if that is killed
    (
        [[ -z ${tends-} ]] || trap '' USR1 # a training ignores it until it listens: it may come while that still loads
        trap - INT
        [[ ! -v lock ]] || exec {lock}>&-
        exec setpriv --pdeathsig TERM "$@"
    ) &
    child=$!
}

await() { # await GRACE: wait for $child and return its status. Once $asked (a time), have it save; end it GRACE s later
    local status=0
    until [[ -n $asked ]]; do # wait is cut short by a signal that we trap, so ask again until the child is gone
        wait "$child" && status=0 || status=$?
        kill -0 "$child" 2>/dev/null || return "$status"
    done
    while kill -0 "$child" 2>/dev/null; do
        if ((SECONDS - asked <= $1)); then
            ranks | xargs -r kill -s USR1 2>/dev/null || true
        else
            (ranks && echo "$child") | xargs -r kill -s KILL 2>/dev/null || true
        fi
        sleep 0.3
    done
    wait "$child"
}

ranks() { # the processes that train: torchrun's children, or $child itself where there is no torchrun
    if grep -qa torch.distributed.run "/proc/$child/cmdline" 2>/dev/null; then
        cat "/proc/$child/task/$child/children" 2>/dev/null || true
    else
        echo "$child"
    fi
}

# The verbs. `attend GRACE COMMAND...`: a machine's part of a training. USR1, TERM, HUP: save and end; USR2: end now.
attend() {
    listen "$1"
    start "${@:2}"
    await "$1"
}

listen() { # listen GRACE
    grace=$1 asked=${asked-} tends=1
    trap 'asked=${asked:-$SECONDS}' USR1 TERM HUP
    trap 'asked=$((SECONDS - grace - 1))' USR2
}

# `remote GRACE COMMAND...`: attend, told by stdin, which carries names of signals. Its end is that of the ssh.
remote() {
    local control name reader status=0
    listen "$1"
    exec {control}<&0 </dev/null
    (
        while read -r name; do kill -s "$name" $$; done
        kill -s HUP $$
    ) <&"$control" &
    reader=$!
    exec {control}<&-
    attend "$@" || status=$?
    kill "$reader" 2>/dev/null || true
    return "$status"
}

# `over_ssh HOST COMMAND [HOST COMMAND]...`: all at once. TERM: all save and end. INT, or when one fails: all end now.
over_ssh() {
    local -A names=()
    local -a controls=()
    local folder file fd ended code status=0
    folder=$(mktemp -d)
    while (($#)); do
        mkfifo "$folder/$#"
        one_host "$1" "$2" <"$folder/$#" &
        names[$!]=$1
        shift 2
    done
    for file in "$folder"/*; do # after all hosts are started, so that none holds the pipe of another open
        exec {fd}>"$file"
        controls+=("$fd")
    done
    rm -r "$folder"
    trap '' PIPE
    trap 'tell USR1' TERM HUP
    trap 'status=130; tell USR2' INT
    while ((${#names[@]} > 0)); do
        ended=''
        wait -n -p ended "${!names[@]}" && code=0 || code=$?
        [[ -n ${ended-} ]] || continue # a signal cut it short
        if ((code > 0 && status == 0)); then
            status=$code
            echo "${names[$ended]}: ended with exit status $code; the other hosts are stopped" >&2
            tell USR2
        fi
        unset "names[$ended]"
    done
    return "$status"
}

one_host() { # one_host HOST COMMAND: its output with the host before each line
    ssh -o BatchMode=yes -o ServerAliveInterval=15 "$1" "$2" 2>&1 | sed -u "s/^/$1: /"
}

tell() { # tell SIGNAL: to all hosts
    local fd
    for fd in "${controls[@]}"; do { echo "$1" >&"$fd"; } 2>/dev/null || true; done
}

# `job FILE TEXT`: write the sbatch file, submit it and wait for its end. INT, TERM: cancel it.
job() {
    local id='' status=0 output pid
    mkdir -p "$(dirname "$1")"
    echo "$2" >"$1"
    exec {output}< <(exec stdbuf -oL sbatch --wait --parsable "$1")
    pid=$!
    read -r id <&"$output" || true
    id=${id%%;*}
    [[ -z $id ]] || echo "Job $id is in the queue; its output: ${1%.sh}-$id.log"
    trap 'scancel "$id"' INT TERM HUP
    while true; do
        wait "$pid" && status=0 || status=$?
        kill -0 "$pid" 2>/dev/null || return "$status"
    done
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    set -euo pipefail
    "$@"
    exit
fi
