"""Two machines on this one: network namespaces, joined by a cable, of which neither sees the other's loopback."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# What `ip netns exec` puts in the place of files of /etc.
ETC = Path("/etc/netns")


@dataclass(frozen=True)
class Machine:
    """One of them: its address, its network interface, and what goes before a command that runs there."""

    address: str
    interface: str
    prefix: tuple[str, ...]


@contextmanager
def two_machines() -> Iterator[list[Machine]]:
    """Make them, and take them down. Skips where this process may not."""
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("only root makes network namespaces, by `ip`")
    number = os.getpid() % 100000
    names = [f"tunemill{number}{one}" for one in "ab"]
    ends = [f"tm{number}{one}" for one in "ab"]
    subnet = f"10.{200 + number % 50}.{number // 50 % 250}"
    try:
        for name in names:
            if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
                pytest.skip("this kernel or container makes no network namespaces")
            # Without it each asks for names that nobody knows, for seconds.
            (ETC / name).mkdir(parents=True)
            known = [f"{subnet}.{at + 1} {other}" for at, other in enumerate(names)]
            (ETC / name / "hosts").write_text("\n".join(["127.0.0.1 localhost", *known, ""]))
            (ETC / name / "resolv.conf").write_text("options timeout:1 attempts:1\n")
        _run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for at, (name, end) in enumerate(zip(names, ends, strict=True)):
            _run("ip", "link", "set", end, "netns", name)
            inside = ("ip", "netns", "exec", name, "ip")
            _run(*inside, "addr", "add", f"{subnet}.{at + 1}/24", "dev", end)
            for one in (end, "lo"):
                _run(*inside, "link", "set", one, "up")
        yield [
            Machine(f"{subnet}.{at + 1}", end, ("ip", "netns", "exec", name))
            for at, (name, end) in enumerate(zip(names, ends, strict=True))
        ]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
            shutil.rmtree(ETC / name, ignore_errors=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
