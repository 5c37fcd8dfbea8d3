"""Simulated hosts on one machine: network namespaces, each with an address and a host name, joined by a bridge."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "arkc"  # names hold the creator's process id: host arkc<pid>-0, its link arkc<pid>v0, bridge arkc<pid>b
IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
SET_HOST_NAME = 'echo "$0" >/proc/sys/kernel/hostname && exec "$@"'


def ip(*words: str, check: bool = True) -> str:
    """Run `ip` of iproute2 and return its output. Raises RuntimeError if it fails and `check` is true."""
    done = subprocess.run([str(IP), *words], check=False, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def why_not() -> str:
    """Return why hosts cannot be created on this machine, an empty string if they can. Creates one to find out."""
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
    """`count` hosts with addresses from 10.77.0.1. Leaving the context kills their processes and removes them."""

    def __init__(self, count: int):
        self.count, self.prefix = count, f"{PREFIX}{os.getpid()}"
        self.addresses = [f"10.77.0.{i + 1}" for i in range(count)]

    def __enter__(self) -> Hosts:
        _remove_stale()
        try:
            ip("link", "add", f"{self.prefix}b", "type", "bridge")
            ip("link", "set", f"{self.prefix}b", "up")
            for host in range(self.count):
                self._add(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        _take_down(self.prefix)

    def _add(self, host: int) -> None:
        name, cable = f"{self.prefix}-{host}", f"{self.prefix}v{host}"
        ip("netns", "add", name)
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", cable, "master", f"{self.prefix}b", "up")
        ip("-n", name, "addr", "add", f"{self.addresses[host]}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", name, "link", "set", device, "up")

    def command(self, host: int, *words: str) -> list[str]:
        """Return the command that runs these words on one host, with the host's name."""
        inside = ["unshare", "--uts", "sh", "-c", SET_HOST_NAME, f"host{host}", *words]
        return [str(IP), "netns", "exec", f"{self.prefix}-{host}", *inside]

    def pids(self, host: int) -> list[int]:
        """List the processes of one host."""
        return _pids(f"{self.prefix}-{host}")

    def unplug(self, host: int) -> None:
        """Cut one host off the network, so that the others do not even see its connections close."""
        ip("link", "set", f"{self.prefix}v{host}", "down")

    def plug(self, host: int) -> None:
        """Connect one host to the network again."""
        ip("link", "set", f"{self.prefix}v{host}", "up")

    def kill(self, host: int) -> None:
        """Kill every process of a host with SIGKILL."""
        _kill_all(f"{self.prefix}-{host}")


def _pids(namespace: str) -> list[int]:
    return [int(pid) for pid in ip("netns", "pids", namespace, check=False).split()]


def _kill_all(namespace: str) -> None:
    for _ in range(200):  # repeat, because processes may start others in the meantime
        pids = _pids(namespace)
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _take_down(prefix: str) -> None:
    for namespace in re.findall(rf"^{prefix}-\d+", ip("netns", "list", check=False), re.M):
        _kill_all(namespace)
        ip("netns", "delete", namespace, check=False)
    for link in re.findall(rf"^\d+: ({prefix}[vb]\d*)[@:]", ip("-o", "link", check=False), re.M):
        ip("link", "delete", link, check=False)


def _remove_stale() -> None:
    """Remove hosts of processes that were killed before they removed them."""
    listed = ip("netns", "list", check=False) + ip("-o", "link", check=False)
    for creator in set(re.findall(rf"\b{PREFIX}(\d+)[-vb]", listed)):
        if not Path(f"/proc/{creator}").exists():
            _take_down(f"{PREFIX}{creator}")
