"""Stage bodies that tests launch, in this process and in children."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import Field

from tunemill.resources.calls import Call, name_of
from tunemill.stages.artifacts import Artifact
from tunemill.stages.declaration import StageConfig
from tunemill.stages.errors import RowError, UserError
from tunemill.stages.report import Report, Workspace


class EchoConfig(StageConfig):
    """What the bodies here read."""

    what: str = Field("hello", description="what to do")


def call_of(body: Callable[..., None], workspace: Mapping[str, Path], what: str, **more: Any) -> Call:
    """A call of one of the bodies here, which has no inputs unless `more` gives some."""
    return Call(
        body=name_of(body),
        config_class=name_of(EchoConfig),
        config={"what": what},
        workspace_class=name_of(Workspace),
        workspace={name: str(path) for name, path in workspace.items()},
        report_class=name_of(Report),
        user_error=name_of(UserError),
        **{"inputs": {}, **more},
    )


def echo(
    config: EchoConfig, one: Artifact, many: list[Artifact], none: None, out: Workspace, report: Report
) -> None:
    """Write what came in, and say so in every way there is."""
    assert none is None
    (out.data / "out.txt").write_text(f"{config.what} {one.path.name} {[item.path.name for item in many]}")
    report.log("a line")
    report.progress(1, 2, "rows")
    report.step(3, loss=0.5)
    report.summary(rows=2)
    print("printed, not an event")


def misbehave(config: EchoConfig, out: Workspace, report: Report) -> None:
    """End in the way that the config names."""
    match config.what:
        case "nothing":
            report.summary(collects=gc.isenabled(), passed_over=gc.get_freeze_count())
        case "user error":
            raise RowError("rows.jsonl:3: not valid JSON; mend the line")
        case "mistake":
            raise KeyError("a mistake of ours")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "disk full":
            with Path("/dev/full").open("w") as file:
                file.write("x")
        case text if "://" in text:
            talk(text, report)
        case "sleep with a child":
            grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
            (out.logs / "pids").write_text(f"{os.getpid()} {grandchild.pid}")
            report.log("asleep")
            time.sleep(300)
        case "deaf":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (out.logs / "pids").write_text(f"{os.getpid()}")
            report.log("asleep")
            time.sleep(300)


def talk(text: str, report: Report) -> None:
    """Tell it in every way there is, and fail."""
    print(text, end="\r", flush=True)
    os.write(2, text[:20].encode())
    time.sleep(0.1)
    os.write(2, text[20:].encode() + b"\nand no end: " + text.encode())
    report.log(text)
    report.summary(said=text)
    report.table(text, [text], [[text, 1]])
    if text.startswith("mistake"):
        raise KeyError(text)
    raise RowError(f"{text}: mend it")


# For 12 s of the clock.
COMPUTES = "import time; end = time.monotonic() + 12\nwhile time.monotonic() < end: pass"


# A server that answers after as long.
ANSWERS = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
taken, _ = server.accept()
time.sleep(12)
taken.sendall(b"x")
"""


def _ask_slowly() -> None:
    """Ask a server, with a limit of time."""
    with subprocess.Popen([sys.executable, "-c", ANSWERS], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        with socket.create_connection(("127.0.0.1", int(server.stdout.readline())), timeout=60) as asked:
            assert asked.recv(1) == b"x"


def beside_the_others(what: str) -> None:
    """What one rank does, or each of them, while the others go on."""
    match what:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "user error":
            raise RowError("rows.jsonl:3: not valid JSON; mend the line")
        case "mistake":
            raise KeyError("a mistake of ours")
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hangs" | "hangs for long":
            time.sleep(300)
        case "hangs in a lock for long":
            threading.Event().wait(300)
        case "hangs in a loop for long":
            while True:
                pass
        case _:
            take_long(what)


def take_long(what: str) -> None:
    """Do something that takes 12 s, and is sound."""
    match what:
        case "something slow":
            time.sleep(12)
        case "computes":
            until = time.monotonic() + 12
            while time.monotonic() < until:
                pass
        case "waits for a program that computes":
            subprocess.run([sys.executable, "-c", COMPUTES], check=True)
        case "waits for a thread that asks a server":
            asks = threading.Thread(target=_ask_slowly)
            asks.start()
            asks.join()


def among_ranks(config: EchoConfig, out: Workspace, report: Report) -> None:
    """What each of several ranks does: `N: what` is what rank N does beside the others, which wait for it."""
    import torch.distributed as group

    if not group.is_initialized():
        group.init_process_group("gloo", timeout=timedelta(seconds=120))
    seconds = 60 if "for long" in config.what else 6 if "hangs" in config.what else 120
    # Beginning takes longer than that where much else is done.
    all_of_them = group.new_group(timeout=timedelta(seconds=seconds))
    number = group.get_rank()
    print(f"rank {number} prints {config.what}", flush=True)
    (out.checkpoints / f"pid_{number}").write_text(str(os.getpid()))
    report.log(f"rank {number} of {group.get_world_size()} says {config.what}")
    report.progress(3, 9, "steps")
    (out.data / "out.txt").write_text(f"rank {number}")
    asked, _, what = config.what.partition(": ")
    if asked in ("all", str(number)):
        beside_the_others(what)
    group.barrier(all_of_them)
    report.summary(ranks=group.get_world_size())
