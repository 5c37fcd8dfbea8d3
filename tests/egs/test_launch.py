"""Launchers of trainings: ssh and Slurm with fake commands on PATH, and torchrun itself with killed ranks."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from forked_ranks import Forked
from processes import children, has_ended, wait_until
from recipes import EGS, commands, recipe, reset_signals
from safetensors.torch import load_file

from arkasr.model.checkpoint_files import complete_checkpoints
from arkasr.training.train import train

pytestmark = pytest.mark.slow

ROOT = EGS.parent
# A fake Python that runs torchrun or a stage. The file does-RANK holds `fail` or `wait`; a waiting rank ends on USR1.
PYTHON = """
[ "${{3-}}" != --version ] || {{ echo arkasr stub; exit; }}
[ "$1" != -c ] || {{ [ ! -e {fake}/real_ports ] || exec {python} "$@"; exit 0; }}
rank=${{PET_NODE_RANK-}}
[[ ! " $* " =~ " --node-rank "([0-9]+) ]] || rank=${{BASH_REMATCH[1]}}
echo "$rank|$PWD|${{ARKASR_RECIPE-}}|${{NCCL_DEBUG-}}|${{PET_MASTER_ADDR-}}|$*" >>{fake}/ran
case $(cat {fake}/does-$rank 2>/dev/null) in
    fail) exit 7 ;;
    alone) mkfifo {fake}/never; read -r -t 60 <>{fake}/never ;; # without a child process
    wait) setpriv --pdeathsig KILL {python} {fake}/listener {fake}/up-$rank &
          echo $! >{fake}/pid-$rank; wait $!; exit ;;
esac
echo "hello from $rank"
[[ ! "$*" =~ \\ --run\\ ([^ ]+)\\ --expdir\\ ([^ ]+) ]] ||
    {{ mkdir -p "${{BASH_REMATCH[2]}}/${{BASH_REMATCH[1]}}/final"
       touch "${{BASH_REMATCH[2]}}/${{BASH_REMATCH[1]}}/final/config.json"; }}
"""
LISTENER = """
import pathlib, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""
SSH = 'echo "${{*: -2:1}}" >>{fake}/ssh; exec env -i PATH="$PATH" bash -c "${{*: -1}}"'  # empty environment
SBATCH = """
echo "$*" >>{fake}/sbatch
echo 42
SLURM_JOB_ID=42 SLURM_JOB_NODELIST='n[0-1]' bash "${{*: -1}}" &
echo $! >{fake}/batch; wait $!
"""
SRUN = """
echo "${{*:1:2}}" >>{fake}/srun
for i in 0 1; do SLURM_PROCID=$i "${{@:3}}" & tasks+=" $!"; done
echo $tasks >{fake}/tasks
trap 'kill -USR1 $tasks' USR1
status=0
for task in $tasks; do while wait $task; s=$?; kill -0 $task 2>/dev/null; do :; done; [ $s = 0 ] || status=$s; done
exit $status
"""
SCONTROL = 'case $1 in show) printf "%s\\n" n0 n1 ;; *) echo "$*" >>{fake}/scontrol ;; esac'
SCANCEL = 'echo "$*" >>{fake}/scancel; kill -TERM $(cat {fake}/tasks)'
TOOLS = {"stub": PYTHON, "ssh": SSH, "sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL}


class Fake:
    """A copy of the recipes, with fake Python, ssh and Slurm commands that record their arguments."""

    def __init__(self, folder: Path):
        self.folder, self.egs = folder, folder / "checkout" / "egs"
        self.started: list[subprocess.Popen] = []
        (self.egs / "librispeech" / "conf").mkdir(parents=True)
        for name in ("recipe.sh", "cmd.sh", "options.sh", "librispeech/run.sh"):
            shutil.copy(EGS / name, self.egs / name)
        for name in ("corpus.yaml", "conf/mini.yaml"):
            (self.egs / "librispeech" / name).touch()
        (folder / "bin").mkdir()
        (folder / "listener").write_text(LISTENER)
        for name, text in TOOLS.items():
            tool = folder / "bin" / name
            tool.write_text("#!/usr/bin/env bash\n" + text.format(fake=folder, python=sys.executable))
            tool.chmod(0o755)
        (folder / "hosts").write_text("# this machine first\nn0\n\nuser@n1 slots=2 # small\n")
        self.env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "NCCL_DEBUG": "VERSION"}
        self.words = [
            "--python",
            str(folder / "bin" / "stub"),
            "--stage",
            "3",
            "--stop_stage",
            "3",
            "--variants",
            "base",
        ]
        self.ssh = [*self.words, "--cmd", "ssh", "--hostfile", str(folder / "hosts")]
        self.slurm = [*self.words, "--cmd", "slurm", "--num_nodes", "2", "--slurm_args=--partition=gpu --time=1:00:00"]

    def run(self, *words: str) -> subprocess.CompletedProcess:
        return recipe(*words, egs=self.egs, **self.env)

    def start(self, *words: str) -> subprocess.Popen:
        """Start the recipe with two ranks that wait, and return when both have installed their handlers."""
        for rank in (0, 1):
            (self.folder / f"does-{rank}").write_text("wait")
        process = self.start_one(*words)
        files = [self.folder / f"{name}-{rank}" for name in ("up", "pid") for rank in (0, 1)]

        def ranks_wait():
            assert process.poll() is None, process.stdout.read()
            # The file of a rank's id may exist before the id is written.
            return all(file.exists() for file in files) and all(file.read_text() for file in files[2:])

        wait_until(ranks_wait)
        return process

    def start_one(self, *words: str) -> subprocess.Popen:
        """Start the recipe and return at once."""
        process = subprocess.Popen(
            [self.egs / "librispeech" / "run.sh", *words],
            env=os.environ | self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=reset_signals,
        )
        self.started.append(process)
        return process

    def ran(self) -> list[list[str]]:
        """Return the records of the fake Python: rank, folder, ARKASR_RECIPE, NCCL_DEBUG, master, arguments."""
        return sorted(line.split("|", 5) for line in (self.folder / "ran").read_text().splitlines())

    def pids(self) -> list[int]:
        return [int((self.folder / f"pid-{rank}").read_text()) for rank in (0, 1)]

    def record(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def fake(tmp_path):
    copy = Fake(tmp_path)
    yield copy
    for process in copy.started:
        process.kill()  # its children end with it


def test_ssh_starts_each_host_in_the_same_folder_and_prefixes_its_output(fake):
    done = fake.run(*fake.ssh, "--ngpu", "8")
    assert done.returncode == 0, done.stderr
    assert sorted(fake.record("ssh")) == ["n0", "user@n1"]
    for rank, processes, (actual_rank, folder, command_line, nccl, _, words) in zip(
        "01", "82", fake.ran(), strict=True
    ):
        assert actual_rank == rank and folder == str(fake.egs / "librispeech") and nccl == "VERSION"
        assert command_line == f"{fake.egs}/librispeech/run.sh {shlex.join([*fake.ssh, '--ngpu', '8'])}"
        assert (
            f"--nnodes 2 --nproc-per-node {processes} --node-rank {rank} --master-addr n0 --master-port 29500 " in words
        )
        assert " arkasr train conf/mini.yaml --run base --expdir exp/mini --datadir data/mini" in words
    assert {"n0: hello from 0", "user@n1: hello from 1"} <= set(done.stdout.splitlines())


def test_dry_run_over_ssh_prints_one_line_per_host(fake):
    lines = commands(fake.run(*fake.ssh, "--dry_run", "true"))
    assert [line[0] for line in lines] == ["n0", "user@n1"] and not fake.record("ssh")
    assert all(f"--node-rank {rank}" in lines[rank][1] for rank in (0, 1))


def test_failing_host_stops_the_others_and_sets_the_exit_status(fake):
    (fake.folder / "does-0").write_text("wait")
    (fake.folder / "does-1").write_text("fail")
    done = fake.run(*fake.ssh)
    assert done.returncode == 7 and "user@n1: failed with exit status 7; stopping the other hosts" in done.stderr
    pid = fake.folder / "pid-0"
    text = pid.read_text() if pid.exists() else ""
    wait_until(lambda: not text or has_ended(int(text)))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_pre_emption_reaches_every_host(name, fake):
    process = fake.start(*fake.ssh)
    process.send_signal(getattr(signal, name))
    output = process.communicate()[0]
    assert process.returncode == 0 and all(map(has_ended, fake.pids()))
    assert "Train base: pre-empted; the same command resumes" in output and "Success" not in output


def test_ctrl_c_ends_every_host(fake):
    process = fake.start(*fake.ssh)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    wait_until(lambda: all(map(has_ended, fake.pids())))  # they are killed, which takes a moment


def test_hosts_save_and_end_if_the_recipe_is_killed(fake):
    process = fake.start(*fake.ssh)
    process.kill()
    wait_until(lambda: all(map(has_ended, fake.pids())))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--cmd pbs", "--cmd takes local or ssh or slurm, not 'pbs'"),
        ("--cmd ssh", "--cmd ssh needs --hostfile"),
        ("--hostfile {hosts}", "--hostfile needs --cmd ssh"),
        ("--slurm_args=--time=1", "--slurm_args needs --cmd slurm"),
        ("--cmd ssh --hostfile {hosts} --num_nodes 3", "--num_nodes is 3, but {hosts} names 2 hosts: omit --num_nodes"),
        ("--cmd slurm --num_nodes 2 --node_rank 1", "--node_rank needs --cmd local"),
        ("--cmd ssh --hostfile {bad}", "{bad}: invalid line 'n1 slot=2'; write 'host' or 'host slots=8'"),
        ("--cmd ssh --hostfile {empty}", "{empty} names no host"),
    ],
)
def test_invalid_launcher_options_give_one_line_and_status_2(words, message, fake):
    places = {name: fake.folder / name for name in ("hosts", "bad", "empty")}
    places["bad"].write_text("n0\nn1 slot=2\n")
    places["empty"].write_text("# none\n")
    done = fake.run(*fake.words, *words.format(**places).split())
    assert done.returncode == 2 and message.format(**places) in done.stderr and done.stderr.count("\n") == 1


def directives(text: str) -> list[str]:
    return [word for line in re.findall(r"^#SBATCH (.*)$", text, re.M) for word in shlex.split(line)]


def test_dry_run_prints_the_sbatch_file_that_a_real_run_submits(fake):
    shown = fake.run(*fake.slurm, "--ngpu", "4", "--grace", "90", "--dry_run", "true")
    assert shown.returncode == 0 and not (fake.egs / "librispeech" / "exp").exists()
    done = fake.run(*fake.slurm, "--ngpu", "4", "--grace", "90")
    assert done.returncode == 0, done.stderr
    assert fake.record("sbatch") == ["--wait --parsable exp/mini/slurm/base.sh"]
    text = (fake.egs / "librispeech" / "exp/mini/slurm/base.sh").read_text()
    # The file contains the command line, which differs between the two runs.
    assert text.replace("90'", "90 --dry_run true'") in shown.stdout
    assert "\nsbatch --wait exp/mini/slurm/base.sh\n" in shown.stdout
    logs = fake.egs / "librispeech" / "exp/mini/slurm/base-%j.log"
    assert directives(text) == [
        *("--job-name=arkasr-base", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4"),
        *(f"--chdir={fake.egs}/librispeech", f"--output={logs}", "--open-mode=append"),
        *("--requeue", "--signal=B:USR1@90", "--partition=gpu", "--time=1:00:00"),
    ]
    assert fake.record("srun") == ["--input=none --kill-on-bad-exit=1"] and not fake.record("scontrol")
    for rank, (actual_rank, _, command_line, _, master, words) in zip("01", fake.ran(), strict=True):
        assert (actual_rank, master) == (rank, "n0") and command_line.startswith(f"{fake.egs}/librispeech/run.sh ")
        assert "--nnodes 2 --nproc-per-node 4 --master-port 29500 --max-restarts 3 --shutdown-timeout 90 " in words
    assert "Submitted job 42; output: exp/mini/slurm/base-42.log" in done.stdout


def test_job_without_gpus_requests_none(fake):
    shown = directives(fake.run(*fake.slurm, "--ngpu", "0", "--dry_run", "true").stdout)
    assert "--nodes=2" in shown and not [word for word in shown if word.startswith("--gpus")]


def test_pre_empted_job_saves_and_is_requeued(fake):
    process = fake.start(*fake.slurm)
    wait_until(lambda: bool(fake.record("batch")))
    os.kill(int(fake.record("batch")[0]), signal.SIGUSR1)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert fake.record("scontrol") == ["requeue 42"] and all(map(has_ended, fake.pids()))
    assert "pre-empted" in output


def test_job_is_cancelled_with_its_recipe(fake):
    process = fake.start(*fake.slurm)
    process.terminate()
    process.communicate()
    assert fake.record("scancel") == ["42"] and not fake.record("scontrol")
    wait_until(lambda: all(map(has_ended, fake.pids())))  # the fake scancel signals them and does not wait


def words_of(fake, stage: str, *words: str) -> list[str]:
    """Return the options for stages from this one on, with the fake Python and a run that needs labels."""
    python = str(fake.folder / "bin" / "stub")
    return ["--python", python, "--stage", stage, "--stop_stage", "5", "--variants", "base_td", *words]


def test_stages_2_to_4_are_submitted_as_one_job_over_all_nodes_each(fake):
    words = words_of(fake, "2", "--scale", "mini", "--cmd", "slurm", "--num_nodes", "2", "--ngpu", "4")
    words += ["--slurm_args=--partition=gpu"]
    done = fake.run(*words)
    assert done.returncode == 0, done.stderr
    names = ["teacher", "label", "base", "base_td", "decode"]
    assert fake.record("sbatch") == [f"--wait --parsable exp/mini/slurm/{name}.sh" for name in names]
    folder = fake.egs / "librispeech"
    for name, verb in (("label", "label conf/mini.yaml"), ("decode", "decode")):
        text = (folder / f"exp/mini/slurm/{name}.sh").read_text()
        assert directives(text) == [
            *(f"--job-name=arkasr-{name}", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4"),
            *(f"--chdir={folder}", f"--output={folder}/exp/mini/slurm/{name}-%j.log", "--open-mode=append"),
            *("--requeue", "--signal=B:USR1@120", "--partition=gpu"),
        ]
        assert f" -m arkasr {verb} --expdir exp/mini --datadir data/mini" in text
        assert " --nnodes 2 --nproc-per-node 4 " in text and "&& -f exp/mini/.arkasr.stopped ]]" in text
    ran = sorted((rank, words) for rank, *_, words in fake.ran() if "arkasr label" in words or "arkasr decode" in words)
    assert [rank for rank, _ in ran] == ["0", "0", "1", "1"]  # each verb on both nodes
    shown = fake.run(*words, "--dry_run", "true").stdout
    assert shown.count("\nsbatch --wait ") == 5 and "\nsbatch --wait exp/mini/slurm/decode.sh\n" in shown


def test_decoding_over_ssh_starts_the_slots_of_each_host(fake):
    (fake.folder / "hosts").write_text("n0 slots=3\nn1\n")
    hosts = str(fake.folder / "hosts")
    words = words_of(fake, "4", "--cmd", "ssh", "--hostfile", hosts, "--ngpu", "2")
    first, second = (
        line for line in fake.run(*words, "--dry_run", "true").stdout.splitlines() if "arkasr decode" in line
    )
    assert first.startswith("ssh n0 ") and "--nproc-per-node 3 --node-rank 0" in first
    assert second.startswith("ssh n1 ") and "--nproc-per-node 2 --node-rank 1" in second
    done = fake.run(*words)
    assert done.returncode == 0, done.stderr
    assert sorted(rank for rank, *_, words in fake.ran() if "arkasr decode" in words) == ["0", "1"]


def test_failing_decoding_job_sets_the_exit_status(fake):
    (fake.folder / "does-0").write_text("fail")
    done = fake.run(*words_of(fake, "4", "--cmd", "slurm"))
    assert done.returncode == 7 and "Stage 4: Decode: failed with exit status 7" in done.stdout


@pytest.mark.parametrize("finished", [False, True])
def test_signalled_decoding_job_is_requeued_if_it_stopped_early(fake, finished):
    process = fake.start(*words_of(fake, "4", "--cmd", "slurm", "--num_nodes", "2"))
    if not finished:
        (fake.egs / "librispeech/exp/mini/.arkasr.stopped").touch()
    wait_until(lambda: bool(fake.record("batch")))
    os.kill(int(fake.record("batch")[0]), signal.SIGUSR1)
    output = process.communicate()[0]
    assert process.returncode == 0 and all(map(has_ended, fake.pids())), output
    assert fake.record("scontrol") == ([] if finished else ["requeue 42"])
    assert ("Stage 4: Decode: pre-empted" in output) == (not finished)
    assert any("arkasr score" in words for *_, words in fake.ran()) == finished


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_to_the_recipe_ends_decoding_over_ssh_with_status_0(fake, number):
    process = fake.start(*words_of(fake, "4", "--cmd", "ssh", "--hostfile", str(fake.folder / "hosts")))
    process.send_signal(number)
    output = process.communicate()[0]
    assert process.returncode == 0 and all(map(has_ended, fake.pids())), output
    assert "Stage 4: Decode: pre-empted; the same command resumes" in output


@pytest.mark.parametrize("taken", [0, 1])
@pytest.mark.parametrize("cmd", ["local", "ssh", "slurm"])
def test_taken_port_of_machine_0_is_one_sentence_before_the_launch(cmd, taken, fake):
    (fake.folder / "real_ports").touch()
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        words = {
            "local": [*fake.words, "--num_nodes", "2", "--master_addr", "localhost"],
            "ssh": fake.ssh,
            "slurm": [word for word in fake.slurm if not word.startswith("--slurm_args")],
        }[cmd]
        done = fake.run(*words, "--ngpu", "2", "--master_port", str(port - taken))
    sentence = f"run.sh: error: port {port} of machine 0 cannot be used (Address already in use): set --master_port to"
    output = done.stdout + done.stderr
    assert done.returncode == 2 and output.count(sentence) == 1, output
    assert "Traceback" not in output and "The same command resumes" not in output
    assert not [row for row in fake.record("ran") if row.startswith("0|")]


def test_port_of_machine_0_is_not_checked_on_other_machines(fake):
    (fake.folder / "real_ports").touch()
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        words = ["--num_nodes", "2", "--master_addr", "localhost", "--node_rank", "1"]
        done = fake.run(*fake.words, *words, "--master_port", str(one.getsockname()[1]))
    assert done.returncode == 0, done.stderr


def test_machine_that_waits_for_others_says_so(fake):
    script = fake.egs / "cmd.sh"
    script.write_text(re.sub(r"^NOTICE_SECONDS=.*", "NOTICE_SECONDS=0.3", script.read_text(), flags=re.M))
    (fake.folder / "does-0").write_text("alone")
    process = fake.start_one(*fake.words, "--num_nodes", "2", "--master_addr", "first", "--master_port", "1234")
    for line in process.stdout:
        if line.startswith("machine 0 has waited"):
            break
    else:
        pytest.fail("no notice")
    assert "s for all 2 machines: start the same command on each of them; all must reach port 1234 of machine 0" in line
    process.send_signal(signal.SIGINT)
    process.communicate()


def test_failing_job_sets_the_exit_status(fake):
    (fake.folder / "does-1").write_text("fail")
    assert fake.run(*fake.slurm).returncode == 7


# With the real torchrun and the tiny models.

STEPS = ["train.steps=40", "train.save_every=4", "train.eval_every=0"]


@pytest.fixture(scope="module")
def real(conf, datadir, tmp_path_factory):
    """Return a function that starts stage 3 with tiny models and returns its process and the run's folder."""
    folder, started = tmp_path_factory.mktemp("real"), []
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def start(name: str, processes: int) -> tuple[subprocess.Popen, Path]:
        words = ["--conf", conf, "--datadir", datadir, "--expdir", folder / name, "--ngpu", str(processes)]
        words += ["--python", sys.executable, "--stage", "3", "--stop_stage", "3", "--variants", "base"]
        process = subprocess.Popen(
            [EGS / "librispeech" / "run.sh", *words, "--train_args", " ".join(STEPS)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=reset_signals,
            start_new_session=True,
        )
        started.append(process)
        return process, folder / name / "base"

    yield start
    for process in started:
        process.kill()


def steps_done(run: Path) -> int:
    checkpoints = complete_checkpoints(run / "checkpoints")
    return int(checkpoints[-1].name[5:]) if checkpoints else 0


def wait_for_step(step: int, run: Path, process: subprocess.Popen) -> None:
    """Wait until there is a checkpoint of this step or a later one."""
    while steps_done(run) < step:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def test_killed_rank_is_restarted_and_gives_equal_weights(real, conf, datadir, tmp_path):
    Forked(2, partial(train, str(conf), "base", str(tmp_path), str(datadir), STEPS), tmp_path / "printed").succeed()
    process, run = real("killed", 2)
    wait_for_step(8, run, process)
    (torchrun,) = children(process.pid)
    os.kill(children(torchrun)[1], signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == 0 and "Successfully finished" in output, output
    resumed = re.search(r"resuming from \S+ \(step (\d+)\)", output)
    assert resumed and 8 <= int(resumed[1]) < 40
    actual, reference = (load_file(folder / "final" / "model.safetensors") for folder in (run, tmp_path / "base"))
    assert actual.keys() == reference.keys()
    assert all(bool((actual[name] == reference[name]).all()) for name in actual)


@pytest.mark.parametrize(
    ("processes", "name", "group"), [(1, "SIGTERM", False), (2, "SIGUSR1", False), (2, "SIGTERM", True)]
)
def test_pre_emption_saves_the_step_and_exits_with_0(processes, name, group, real):
    """With `group` torchrun gets the signal too, as from a scheduler."""
    process, run = real(f"pre-empted-{processes}-{name}", processes)
    wait_for_step(4, run, process)
    (os.killpg if group else os.kill)(process.pid, getattr(signal, name))
    output = process.communicate()[0]
    assert process.returncode == 0 and not (run / "final").exists(), output
    message = re.search(r"stopped by a signal after step (\d+), which is saved", output)
    assert message and steps_done(run) == int(message[1]) >= 4
    assert re.search(r"Stage 3: Train base: pre-empted; the same command resumes: \S+run.sh .*\n$", output)
    assert group or "Traceback" not in output
