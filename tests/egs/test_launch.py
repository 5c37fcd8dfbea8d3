"""How trainings are started: over ssh and by Slurm with stand-ins on PATH, and by torchrun itself, ranks killed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recipes import EGS, commands, gone, heed_signals, recipe, wait_until
from safetensors.torch import load_file

from arkasr.model.checkpoint_files import complete_checkpoints

ROOT = EGS.parent
# A stand-in for the Python that runs torchrun or a stage; `does-RANK` says what befalls it. Its rank listens to USR1.
PYTHON = """
[ "${{3-}}" != --version ] || {{ echo arkasr stub; exit; }}
rank=${{PET_NODE_RANK-}}
[[ ! " $* " =~ " --node-rank "([0-9]+) ]] || rank=${{BASH_REMATCH[1]}}
echo "$rank|$PWD|${{ARKASR_RECIPE-}}|${{NCCL_DEBUG-}}|${{PET_MASTER_ADDR-}}|$*" >>{fake}/ran
case $(cat {fake}/does-$rank 2>/dev/null) in
    fail) exit 7 ;;
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
SSH = 'echo "${{*: -2:1}}" >>{fake}/ssh; exec env -i PATH="$PATH" bash -c "${{*: -1}}"'  # a login knows nothing
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
    """A copy of the recipes among stand-ins for Python, ssh and Slurm, which write down what they are asked."""

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
        (folder / "hosts").write_text("# the first is this machine\nn0\n\nuser@n1 slots=2 # small\n")
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
        """Start the recipe; returns when both ranks, told to wait, listen."""
        for rank in (0, 1):
            (self.folder / f"does-{rank}").write_text("wait")
        process = subprocess.Popen(
            [self.egs / "librispeech" / "run.sh", *words],
            env=os.environ | self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_signals,
        )
        self.started.append(process)
        wait_until(lambda: all((self.folder / f"up-{rank}").exists() for rank in (0, 1)))
        return process

    def ran(self) -> list[list[str]]:
        """Return what the stand-in for Python saw: rank, folder, ARKASR_RECIPE, NCCL_DEBUG, master, its words."""
        return sorted(line.split("|", 5) for line in (self.folder / "ran").read_text().splitlines())

    def pids(self) -> list[int]:
        return [int((self.folder / f"pid-{rank}").read_text()) for rank in (0, 1)]

    def said(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def fake(tmp_path):
    made = Fake(tmp_path)
    yield made
    for process in made.started:
        process.kill()  # what it started goes with it


def test_ssh_starts_a_part_on_each_host_in_the_same_folder_and_prefixes_its_output(fake):
    done = fake.run(*fake.ssh, "--ngpu", "8")
    assert done.returncode == 0, done.stderr
    assert sorted(fake.said("ssh")) == ["n0", "user@n1"]
    for rank, processes, (got, folder, again, nccl, _, words) in zip("01", "82", fake.ran(), strict=True):
        assert got == rank and folder == str(fake.egs / "librispeech") and nccl == "VERSION"
        assert again == f"{fake.egs}/librispeech/run.sh {shlex.join([*fake.ssh, '--ngpu', '8'])}"
        assert (
            f"--nnodes 2 --nproc-per-node {processes} --node-rank {rank} --master-addr n0 --master-port 29500 " in words
        )
        assert " arkasr train conf/mini.yaml --run base --expdir exp/mini --datadir data/mini" in words
    assert {"n0: hello from 0", "user@n1: hello from 1"} <= set(done.stdout.splitlines())


def test_a_dry_run_over_ssh_shows_a_line_a_host(fake):
    lines = commands(fake.run(*fake.ssh, "--dry_run", "true"))
    assert [line[0] for line in lines] == ["n0", "user@n1"] and not fake.said("ssh")
    assert all(f"--node-rank {rank}" in lines[rank][1] for rank in (0, 1))


def test_when_a_host_fails_the_others_end_and_its_status_is_ours(fake):
    (fake.folder / "does-0").write_text("wait")
    (fake.folder / "does-1").write_text("fail")
    done = fake.run(*fake.ssh)
    assert done.returncode == 7 and "user@n1: ended with exit status 7; the other hosts are stopped" in done.stderr
    pid = fake.folder / "pid-0"
    assert not pid.exists() or gone(int(pid.read_text()))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_pre_emption_reaches_every_host(name, fake):
    process = fake.start(*fake.ssh)
    process.send_signal(getattr(signal, name))
    output = process.communicate()[0]
    assert process.returncode == 0 and all(map(gone, fake.pids()))
    assert "Train base: pre-empted; the same command carries on" in output and "Success" not in output


def test_ctrl_c_ends_every_host(fake):
    process = fake.start(*fake.ssh)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130 and all(map(gone, fake.pids()))


def test_hosts_save_and_end_when_the_recipe_is_killed(fake):
    process = fake.start(*fake.ssh)
    process.kill()
    wait_until(lambda: all(map(gone, fake.pids())))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--cmd pbs", "--cmd takes local or ssh or slurm, not 'pbs'"),
        ("--cmd ssh", "--cmd ssh needs --hostfile"),
        ("--hostfile {hosts}", "--hostfile goes with --cmd ssh"),
        ("--slurm_args=--time=1", "--slurm_args goes with --cmd slurm"),
        ("--cmd ssh --hostfile {hosts} --num_nodes 3", "--num_nodes 3, but {hosts} names 2: leave it out"),
        ("--cmd slurm --num_nodes 2 --node_rank 1", "--node_rank goes with --cmd local"),
        ("--cmd ssh --hostfile {bad}", "{bad}: 'n1 slot=2' is not 'host' or 'host slots=8'"),
        ("--cmd ssh --hostfile {empty}", "{empty} names no host"),
    ],
)
def test_wrong_calls(words, sentence, fake):
    places = {name: fake.folder / name for name in ("hosts", "bad", "empty")}
    places["bad"].write_text("n0\nn1 slot=2\n")
    places["empty"].write_text("# none\n")
    done = fake.run(*fake.words, *words.format(**places).split())
    assert done.returncode == 2 and sentence.format(**places) in done.stderr and done.stderr.count("\n") == 1


def directives(text: str) -> list[str]:
    return [word for line in re.findall(r"^#SBATCH (.*)$", text, re.M) for word in shlex.split(line)]


def test_a_dry_run_shows_the_sbatch_file_that_a_real_run_submits_and_waits_for(fake):
    shown = fake.run(*fake.slurm, "--ngpu", "4", "--grace", "90", "--dry_run", "true")
    assert shown.returncode == 0 and not (fake.egs / "librispeech" / "exp").exists()
    done = fake.run(*fake.slurm, "--ngpu", "4", "--grace", "90")
    assert done.returncode == 0, done.stderr
    assert fake.said("sbatch") == ["--wait --parsable exp/mini/slurm/base.sh"]
    text = (fake.egs / "librispeech" / "exp/mini/slurm/base.sh").read_text()
    # The two runs differ in the command that they were called by, which stands in the file.
    assert text.replace("90'", "90 --dry_run true'") in shown.stdout
    assert "\nsbatch --wait exp/mini/slurm/base.sh\n" in shown.stdout
    logs = fake.egs / "librispeech" / "exp/mini/slurm/base-%j.log"
    assert directives(text) == [
        *("--job-name=arkasr-base", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4"),
        *(f"--chdir={fake.egs}/librispeech", f"--output={logs}", "--open-mode=append"),
        *("--requeue", "--signal=B:USR1@90", "--partition=gpu", "--time=1:00:00"),
    ]
    assert fake.said("srun") == ["--input=none --kill-on-bad-exit=1"] and not fake.said("scontrol")
    for rank, (got, _, again, _, master, words) in zip("01", fake.ran(), strict=True):
        assert (got, master) == (rank, "n0") and again.startswith(f"{fake.egs}/librispeech/run.sh ")
        assert "--nnodes 2 --nproc-per-node 4 --master-port 29500 --max-restarts 3 --shutdown-timeout 90 " in words
    assert "Job 42 is in the queue; its output: exp/mini/slurm/base-42.log" in done.stdout


def test_a_job_without_gpus_asks_for_none(fake):
    shown = directives(fake.run(*fake.slurm, "--ngpu", "0", "--dry_run", "true").stdout)
    assert "--nodes=2" in shown and not [word for word in shown if word.startswith("--gpus")]


def test_a_pre_empted_job_saves_and_goes_back_to_the_queue(fake):
    process = fake.start(*fake.slurm)
    os.kill(int((fake.folder / "batch").read_text()), signal.SIGUSR1)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert fake.said("scontrol") == ["requeue 42"] and all(map(gone, fake.pids()))
    assert "pre-empted" in output


def test_a_job_goes_with_its_recipe(fake):
    process = fake.start(*fake.slurm)
    process.terminate()
    process.communicate()
    assert fake.said("scancel") == ["42"] and not fake.said("scontrol") and all(map(gone, fake.pids()))


def test_a_failing_job_gives_its_status(fake):
    (fake.folder / "does-1").write_text("fail")
    assert fake.run(*fake.slurm).returncode == 7


# With the real torchrun and the tiny models.

STEPS = ["train.steps=40", "train.save_every=4", "train.eval_every=0"]


@pytest.fixture(scope="module")
def real(conf, datadir, tmp_path_factory):
    """Return a function that starts stage 3 with the tiny models: its process and the folder of the run."""
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
            preexec_fn=heed_signals,
            start_new_session=True,
        )
        started.append(process)
        return process, folder / name / "base"

    yield start
    for process in started:
        process.kill()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def steps_done(run: Path) -> int:
    found = complete_checkpoints(run / "checkpoints")
    return int(found[-1].name[5:]) if found else 0


def wait_for_step(step: int, run: Path, process: subprocess.Popen) -> None:
    """Wait until a checkpoint of this step or a later one is there."""
    while steps_done(run) < step:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def test_a_killed_rank_is_started_again_and_the_result_is_the_same(real):
    undisturbed, expected = real("undisturbed", 2)
    output = undisturbed.communicate()[0]
    assert undisturbed.returncode == 0, output
    process, run = real("killed", 2)
    wait_for_step(8, run, process)
    (torchrun,) = children(process.pid)
    os.kill(children(torchrun)[1], signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == 0 and "Successfully finished" in output, output
    resumed = re.search(r"resuming from \S+ \(step (\d+)\)", output)
    assert resumed and 8 <= int(resumed[1]) < 40
    ours, theirs = (load_file(folder / "final" / "model.safetensors") for folder in (run, expected))
    assert ours.keys() == theirs.keys() and all(bool((ours[name] == theirs[name]).all()) for name in ours)


@pytest.mark.parametrize(
    ("processes", "name", "group"), [(1, "SIGTERM", False), (2, "SIGUSR1", False), (2, "SIGTERM", True)]
)
def test_pre_emption_saves_the_step_and_ends_well(processes, name, group, real):
    """group: the signal goes to torchrun too, as schedulers send it, not to the recipe alone."""
    process, run = real(f"pre-empted-{processes}-{name}", processes)
    wait_for_step(4, run, process)
    (os.killpg if group else os.kill)(process.pid, getattr(signal, name))
    output = process.communicate()[0]
    assert process.returncode == 0 and not (run / "final").exists(), output
    said = re.search(r"stopped by a signal after step (\d+), which is saved", output)
    assert said and steps_done(run) == int(said[1]) >= 4
    assert re.search(r"Stage 3: Train base: pre-empted; the same command carries on: \S+run.sh .*\n$", output)
    assert group or "Traceback" not in output
