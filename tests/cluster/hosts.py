"""Hosts on one machine: network namespaces with an address and a host name each, joined by a bridge."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "arkc"  # then the process that made it: arkc<pid>-0, its cable arkc<pid>v0, and the bridge arkc<pid>b
IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
NAMED = 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"'


def ip(*words: str, check: bool = True) -> str:
    """Run iproute2's ip and return what it prints. Raises RuntimeError where it fails and check is true."""
    done = subprocess.run([str(IP), *words], check=False, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def why_not() -> str:
    """Say why hosts cannot be made here; empty where they can: a namespace is made and taken down to know."""
    if os.name != "posix" or os.geteuid() != 0:
        return "network namespaces need root"
    if IP is None or shutil.which("unshare") is None:
        return "ip (iproute2) and unshare (util-linux) are needed"
    try:
        with Hosts(1):
            return ""
    except (RuntimeError, OSError) as error:
        return f"no network namespaces here: {error}"


class Hosts:
    """`count` hosts, 10.77.0.1 and up; leaving the context ends all that runs in them and takes them down."""

    def __init__(self, count: int):
        self.count, self.own = count, f"{PREFIX}{os.getpid()}"
        self.addresses = [f"10.77.0.{i + 1}" for i in range(count)]

    def __enter__(self) -> Hosts:
        _remove_stale()
        try:
            ip("link", "add", f"{self.own}b", "type", "bridge")
            ip("link", "set", f"{self.own}b", "up")
            for host in range(self.count):
                self._add(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        _take_down(self.own)

    def _add(self, host: int) -> None:
        name, cable = f"{self.own}-{host}", f"{self.own}v{host}"
        ip("netns", "add", name)
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", cable, "master", f"{self.own}b", "up")
        ip("-n", name, "addr", "add", f"{self.addresses[host]}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", name, "link", "set", device, "up")

    def command(self, host: int, *words: str) -> list[str]:
        """Return the command that runs these words on a host, under the host's own name."""
        inside = ["unshare", "--uts", "sh", "-c", NAMED, f"host{host}", *words]
        return [str(IP), "netns", "exec", f"{self.own}-{host}", *inside]

    def pids(self, host: int) -> list[int]:
        """List the processes of a host."""
        return _pids(f"{self.own}-{host}")

    def unplug(self, host: int) -> None:
        """Take a host's cable out: nobody hears of it any more, not even that its connections are closed."""
        ip("link", "set", f"{self.own}v{host}", "down")

    def plug(self, host: int) -> None:
        """Put it back."""
        ip("link", "set", f"{self.own}v{host}", "up")

    def kill(self, host: int) -> None:
        """End every process of a host by signal 9."""
        _kill_all(f"{self.own}-{host}")


def _pids(namespace: str) -> list[int]:
    return [int(pid) for pid in ip("netns", "pids", namespace, check=False).split()]


def _kill_all(namespace: str) -> None:
    for _ in range(200):  # what a process started meanwhile is met in the next round
        pids = _pids(namespace)
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _take_down(own: str) -> None:
    for namespace in re.findall(rf"^{own}-\d+", ip("netns", "list", check=False), re.M):
        _kill_all(namespace)
        ip("netns", "delete", namespace, check=False)
    for link in re.findall(rf"^\d+: ({own}[vb]\d*)[@:]", ip("-o", "link", check=False), re.M):
        ip("link", "delete", link, check=False)


def _remove_stale() -> None:
    """Take down what a process left that was killed before it could."""
    listed = ip("netns", "list", check=False) + ip("-o", "link", check=False)
    for maker in set(re.findall(rf"\b{PREFIX}(\d+)[-vb]", listed)):
        if not Path(f"/proc/{maker}").exists():
            _take_down(f"{PREFIX}{maker}")
