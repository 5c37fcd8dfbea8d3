"""The environment of a process: a user without an entry in /etc/passwd, and output in a narrow encoding."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from processes import has_ended, wait_until

ROOT = Path(__file__).parents[2]

NO_USER = """
import os, pwd, sys
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""


def python(code, tmp_path, *words, **env):
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    command = [sys.executable, "-c", NO_USER + code, *words]
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "PYTHONPATH": path} | env
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)


def test_prepare_process_names_a_user_without_an_entry_and_gives_it_a_home(tmp_path):
    code = (
        "from arkasr.utils.process import prepare_process\nprepare_process()\n"
        "import getpass, pathlib\nprint(getpass.getuser())\nprint(pathlib.Path.home())"
    )
    name, home = python(code, tmp_path).stdout.splitlines()
    assert name == f"uid{os.getuid()}" and home == str(tmp_path / f"arkasr-uid{os.getuid()}")
    assert stat.S_IMODE(os.stat(home).st_mode) == 0o700
    assert python(code, tmp_path).stdout.splitlines() == [name, home]
    assert python(code, tmp_path, USER="me", HOME="/h").stdout.splitlines() == ["me", "/h"]


def test_prepare_process_takes_no_home_that_someone_else_may_write_to(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"arkasr-uid{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    code = "from arkasr.utils.process import prepare_process\nprepare_process()\nprint(os.environ['HOME'])"
    home = python(code, tmp_path).stdout.strip()
    assert home.startswith(str(tmp_path / "arkasr-")) and not os.path.islink(home)


PARENT = """
import os, subprocess, sys, time
code = "import sys, time; from arkasr.utils.process import end_with_parent; end_with_parent(int(sys.argv[1]))"
code += "; print('ready', flush=True); time.sleep(600)"
command = [sys.executable, "-c", code, sys.argv[1] or str(os.getpid())]
child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline().strip(), flush=True)
print(child.wait())
"""


@pytest.mark.slow
def test_end_with_parent_ends_a_process_whose_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, ""], stdout=subprocess.PIPE, text=True)
    pid, ready = parent.stdout.readline().split()
    assert ready == "ready" and not has_ended(int(pid))
    parent.kill()
    parent.wait()
    wait_until(lambda: has_ended(int(pid)))


@pytest.mark.slow
def test_end_with_parent_ends_a_process_whose_parent_has_died_already():
    done = subprocess.run([sys.executable, "-c", PARENT, "1"], capture_output=True, text=True, timeout=120)
    assert "ready" not in done.stdout and done.stdout.split()[-1] == "143"


def test_prepare_process_lets_every_character_be_printed(tmp_path):
    code = "from arkasr.utils.process import prepare_process\nprepare_process()\nprint('caf\\u00e9 \\u5b57 \\udcff')"
    done = python(code, tmp_path, PYTHONIOENCODING="ascii")
    assert done.stdout == "caf\\xe9 \\u5b57 \\udcff\n", done.stderr


def test_prepare_process_makes_the_command_of_the_recipe_valid_utf8(tmp_path):
    code = (
        "from arkasr.utils.process import prepare_process\nprepare_process()\nprint(ascii(os.environ['ARKASR_RECIPE']))"
    )
    done = python(code, tmp_path, ARKASR_RECIPE=os.fsdecode(b"/caf\xe9/caf\xc3\xa9/run.sh"))
    assert done.stdout == "'/caf\\\\udce9/caf\\xe9/run.sh'\n"


@pytest.mark.slow
def test_verbs_run_for_a_user_without_an_entry(trained, datadir, conf, tmp_path):
    code = "from arkasr.cli import main\nsys.exit(main(sys.argv[1:]))"
    words = ["train", str(conf), "--run", "base", "--expdir", "exp", "--datadir", str(datadir), "train.steps=1"]
    for verb in (words, ["decode", "--runs", "base", "--expdir", "exp", "--datadir", str(datadir)]):
        done = python(code, tmp_path, *verb, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr


def test_imports_are_not_interrupted_by_searches_for_garbage(tmp_path):
    code = """
import gc
from arkasr.utils.process import importing
searches = []
gc.callbacks.append(lambda phase, info: searches.append(phase))
with importing():
    import colorsys
    kept = [[] for _ in range(100_000)]
print(len(searches), gc.isenabled(), gc.get_freeze_count() > 100_000)
gc.unfreeze()
with importing():  # what is in memory already needs no search, and garbage must not last for ever
    import colorsys
print(gc.isenabled(), gc.get_freeze_count())
gc.disable()
with importing():
    import wave
print(gc.isenabled())
"""
    assert python(code, tmp_path).stdout.splitlines() == ["0 True True", "True 0", "False"]
