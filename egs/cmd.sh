#!/usr/bin/env bash
# Starts stages 2 to 4 (--cmd): with torchrun on this machine, over ssh on the hosts of a file, or as a Slurm job.
# recipe.sh sources this file. On the machines of ssh and Slurm it runs as a script, with one of the verbs below.
# shellcheck disable=SC2034,SC2154  # recipe.sh and this file share variables

train() { # train STAGE RUN: train one run of the configuration
    local final_config=${opt[expdir]}/$2/final/config.json
    local unfinished="! -f $(quoted "$final_config")"
    on_all_machines "$1" "Train $2" "$2" train "${opt[conf]}" --run "$2" "${dirs[@]}" "${overrides[@]}"
}

transcribe() { # transcribe STAGE TITLE VERB [WORD]...: run `label` or `decode`
    # They keep every finished batch, so a signal loses nothing. The file exists if one ended them early.
    local final_config='' unfinished
    unfinished="-f $(quoted "${opt[expdir]}/.arkasr.stopped")"
    on_all_machines "$1" "$2" "$3" "${@:3}"
}

on_all_machines() { # on_all_machines STAGE TITLE NAME VERB [WORD]...: run a verb with all processes of all machines
    local show=quoted saves_on_signal=''
    local -a launch elastic=(--max-restarts "${opt[max_restarts]}" --shutdown-timeout "${opt[grace]}" --no-python --)
    local -a words=("${arkasr[@]}" "${@:4}")
    "launch_${opt[cmd]}" "$3"
    run "$1" "$2" "${launch[@]}"
}

torchrun() { # torchrun PROCESSES [OPTION]...: set `launch` to the command of one of several machines
    # Only the static rendezvous respects --node-rank, which makes machine 0 the one that logs. Restarted ranks need a
    # store without the addresses of the ranks before them. Rank 0 therefore opens a new one at the next port.
    launch=("${python[@]}" -m torch.distributed.run --nnodes "${opt[num_nodes]}" --nproc-per-node "$1" "${@:2}"
        --master-port "${opt[master_port]}" "${elastic[@]}"
        env "MASTER_PORT=$((opt[master_port] + 1))" TORCHELASTIC_USE_AGENT_STORE=False "${words[@]}")
}

launch_local() { # with torchrun if there are several processes
    saves_on_signal=1 # this script forwards signals to the ranks, which save
    if ((opt[num_nodes] > 1)); then
        torchrun "$processes" --node-rank "${opt[node_rank]}" --master-addr "${opt[master_addr]}"
    elif ((processes > 1)); then
        # As above: each start of the ranks gets a new store, at a free port.
        launch=(env TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 "${python[@]}" -m torch.distributed.run --standalone
            --local-addr localhost --nproc-per-node "$processes" "${elastic[@]}" "${words[@]}")
    else
        launch=("${words[@]}")
    fi
}

launch_ssh() { # with torchrun on each host of --hostfile; the first host is the rendezvous
    local -a each=() environment=()
    local rank name
    # A login over ssh lacks these variables. Tokens are not passed: all users can read command lines.
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

launch_slurm() { # with a job that starts torchrun on each of its nodes
    torchrun "$processes"
    launch=(bash "$egs/cmd.sh" job "${opt[expdir]}/slurm/$1.sh" "$(job_script "$1")") show=show_job
}

directives() { # directives NAME: print the head of an sbatch file
    local gpus=''
    ((opt[ngpu] == 0)) || gpus=" --gpus-per-node=${opt[ngpu]}"
    cat <<END
#!/usr/bin/env bash
# Written by recipe.sh.
#SBATCH --job-name=arkasr-$1 --nodes=${opt[num_nodes]} --ntasks-per-node=1$gpus
#SBATCH --chdir=$(quoted "$PWD")
#SBATCH --output=$(quoted "$(realpath -m "${opt[expdir]}")/slurm/$1-%j.log") --open-mode=append
#SBATCH --requeue --signal=B:USR1@${opt[grace]} ${opt[slurm_args]}
END
}

job_script() { # job_script NAME: print the sbatch file that runs the command in `launch` on all nodes
    directives "$1"
    cat <<END
# When pre-empted, and ${opt[grace]} s before its time limit, the job saves and is requeued.
PET_MASTER_ADDR=\$(scontrol show hostnames "\$SLURM_JOB_NODELIST" | head -n 1) # torchrun's --master-addr
export PET_MASTER_ADDR ARKASR_RECIPE=${ARKASR_RECIPE@Q}
srun --input=none --kill-on-bad-exit=1 bash -c 'PET_NODE_RANK=\$SLURM_PROCID exec "\$@"' _ \\
    $(quoted bash "$egs/cmd.sh" attend "${opt[grace]}" "${launch[@]}") &
step=\$! signalled='' status=0
trap 'signalled=1; kill -USR1 "\$step"' USR1
while true; do
    wait "\$step" && status=0 || status=\$?
    kill -0 "\$step" 2>/dev/null || break
done
if [[ -n \$signalled && $unfinished ]]; then scontrol requeue "\$SLURM_JOB_ID"; fi
exit "\$status"
END
}

show_hosts() { # for --dry_run: print the command of each host
    shift 3
    while (($#)); do
        quoted ssh "$1" "$2"
        shift 2
    done
}

show_job() { # for --dry_run: print the sbatch file
    echo "$5"
    quoted sbatch --wait "$4"
}

read_hosts() { # read hosts and slots (processes) from --hostfile, whose lines are `host` or `host slots=N`
    local line host slot more
    while read -r line || [[ -n $line ]]; do
        read -r host slot more <<<"${line%%#*}"
        [[ -n $host ]] || continue
        [[ $host =~ ^[A-Za-z0-9_.:@][A-Za-z0-9_.:@-]*$ && ${slot:-slots=1} =~ ^slots=[1-9][0-9]*$ && -z $more ]] ||
            die "--hostfile ${opt[hostfile]}: invalid line '$line'; write 'host' or 'host slots=8'"
        slot=${slot#slots=}
        hosts+=("$host") slots+=("${slot:-$processes}")
    done <"${opt[hostfile]}"
    ((${#hosts[@]} > 0)) || die "--hostfile ${opt[hostfile]} names no host: write 'host' or 'host slots=8' on each line"
}

read_launch() { # read_launch COMMAND...: set machines, machine, port and launcher (the Python) from torchrun's options
    local -a words=("$@")
    local i
    machines=1 machine=${PET_NODE_RANK-} port='' launcher=()
    for ((i = 0; i + 1 < ${#words[@]}; i++)); do
        [[ ${words[i + 1]} != torch.distributed.run ]] || launcher=("${words[@]:0:i}")
        case ${words[i]} in
            --nnodes) machines=${words[i + 1]} ;;
            --node-rank) machine=${words[i + 1]} ;;
            --master-port) port=${words[i + 1]} ;;
            --) break ;;
        esac
    done
    if ((${#launcher[@]} == 0)); then machines=1; fi
}

check_ports() { # check_ports COMMAND...: on machine 0, fail if a port of its torchrun is taken
    local machines machine port launcher
    read_launch "$@"
    ((machines > 1)) && [[ $machine == 0 ]] || return 0
    "${launcher[@]}" -c "$FIND_TAKEN" "$port" "$((port + 1))"
}

FIND_TAKEN='import socket, sys
for port in sys.argv[1:]:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", int(port)))
        except OSError as error:
            print(f"run.sh: error: port {port} of machine 0 cannot be used ({error.strerror}): set --master_port to another "
                  "port, which is free like the port after it", file=sys.stderr)
            sys.exit(2)'

NOTICE_SECONDS=15

say_waiting() { # say so while torchrun waits for other machines. It then has no ranks yet
    local since=$SECONDS waited
    [[ ! -v lock ]] || exec {lock}>&-
    while true; do
        sleep "$NOTICE_SECONDS" >/dev/null 2>&1
        kill -0 "$child" 2>/dev/null && [[ -z $(ranks) ]] || return 0
        waited=$((SECONDS - since))
        echo "machine ${machine:-?} has waited $waited s for all $machines machines: start the same command on each of them;" \
            "all must reach port $port of machine 0"
    done
}

start() { # start COMMAND...: start it in the background as $child; it ends with this script, even if that is killed
    (
        [[ -z ${saves_on_signal-} ]] || trap '' USR1 # ignored while the ranks load, until it installs its handler
        trap - INT
        [[ ! -v lock ]] || exec {lock}>&-
        exec setpriv --pdeathsig TERM "$@"
    ) &
    child=$! watcher=''
    local machines machine port launcher
    read_launch "$@"
    ((machines > 1)) || return 0
    say_waiting &
    watcher=$!
}

end_watcher() {
    [[ -z ${watcher-} ]] || kill "$watcher" 2>/dev/null || true
}

await() { # await GRACE: wait for $child and return its status. From $stop_time on, have it save; kill it GRACE s later
    local status=0
    until [[ -n $stop_time ]]; do # a trapped signal interrupts `wait`, so repeat it until the child has ended
        wait "$child" && status=0 || status=$?
        kill -0 "$child" 2>/dev/null || return "$status"
    done
    while kill -0 "$child" 2>/dev/null; do
        if ((SECONDS - stop_time <= $1)); then
            ranks | xargs -r kill -s USR1 2>/dev/null || true
        else
            (ranks && echo "$child") | xargs -r kill -s KILL 2>/dev/null || true
        fi
        sleep 0.3
    done
    wait "$child"
}

ranks() { # print the ids of the ranks: torchrun's children, or $child itself without torchrun
    if grep -qa torch.distributed.run "/proc/$child/cmdline" 2>/dev/null; then
        cat "/proc/$child/task/$child/children" 2>/dev/null || true
    else
        echo "$child"
    fi
}

# Verbs of this file as a script.

# `attend GRACE COMMAND...`: run one machine's part of a stage. USR1, TERM and HUP: save and end. USR2: end now.
attend() {
    trap_signals "$1"
    check_ports "${@:2}" || return
    start "${@:2}"
    local status=0
    await "$1" || status=$?
    end_watcher
    return "$status"
}

trap_signals() { # trap_signals GRACE
    grace=$1 stop_time=${stop_time-} saves_on_signal=1
    trap 'stop_time=${stop_time:-$SECONDS}' USR1 TERM HUP
    trap 'stop_time=$((SECONDS - grace - 1))' USR2
}

# `remote GRACE COMMAND...`: like attend. Standard input carries names of signals, and ends with the ssh connection.
remote() {
    local control name reader status=0
    trap_signals "$1"
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

# `over_ssh HOST COMMAND [HOST COMMAND]...`: run all commands at once. TERM: all save and end. INT or a failed host:
# all end now.
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
    for file in "$folder"/*; do # after all hosts have started, so that none holds the pipe of another open
        exec {fd}>"$file"
        controls+=("$fd")
    done
    rm -r "$folder"
    trap '' PIPE
    trap 'send_signal USR1' TERM HUP
    trap 'status=130; send_signal USR2' INT
    while ((${#names[@]} > 0)); do
        ended=''
        wait -n -p ended "${!names[@]}" && code=0 || code=$?
        [[ -n ${ended-} ]] || continue # a signal interrupted `wait`
        if ((code > 0 && status == 0)); then
            status=$code
            echo "${names[$ended]}: failed with exit status $code; stopping the other hosts" >&2
            send_signal USR2
        fi
        unset "names[$ended]"
    done
    return "$status"
}

one_host() { # one_host HOST COMMAND: run it over ssh, with the host before each line of output
    ssh -o BatchMode=yes -o ServerAliveInterval=15 "$1" "$2" 2>&1 | sed -u "s/^/$1: /"
}

send_signal() { # send_signal NAME: send a signal to all hosts
    local fd
    for fd in "${controls[@]}"; do { echo "$1" >&"$fd"; } 2>/dev/null || true; done
}

# `job FILE TEXT`: write the sbatch file, submit it and wait for its end. INT, TERM and HUP cancel it.
job() {
    local id='' status=0 output pid
    mkdir -p "$(dirname "$1")"
    echo "$2" >"$1"
    exec {output}< <(exec stdbuf -oL sbatch --wait --parsable "$1")
    pid=$!
    read -r id <&"$output" || true
    id=${id%%;*}
    [[ -z $id ]] || echo "Submitted job $id; output: ${1%.sh}-$id.log"
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
