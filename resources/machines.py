"""Several machines whose processes train together: how torch's agents, one on each, find one another."""

import os
import socket
import time
from typing import Any

from tunemill.resources.calls import Call, Nodes, Sink

LOOK_SECONDS = 1.0
# In seconds: a machine waits so long for the others. Each prepares its inputs first, which may take hours.
PATIENCE = 24 * 3600
# A machine that is there and does not listen yet refuses; one of which nothing comes back is somewhere else.
UNANSWERED_SECONDS = 600.0
REMIND_SECONDS = 60.0
ELSEWHERE = (
    "The machines fail together: if another is gone or did not answer, what that one says is the reason"
)


class NotMetError(OSError):
    """The machines cannot find one another."""


def meeting(call: Call, sink: Sink) -> dict[str, Any]:
    """How the agent of this machine finds the others, in torch's names. Waits for the first machine to listen.

    Raises NotMetError where it does not, or where nobody knows its name.
    """
    if call.nodes is None:
        return {
            "min_nodes": 1,
            "max_nodes": 1,
            "run_id": f"tunemill-{os.getpid()}",
            "rdzv_backend": "c10d",
            "rdzv_endpoint": "127.0.0.1:0",
            "local_addr": "127.0.0.1",
        }
    nodes = call.nodes
    if fault := fault_of_name(nodes.rendezvous):
        raise NotMetError(fault)
    sink({"type": "log", "message": _waits(nodes)})
    if nodes.rank:
        _until_it_listens(nodes.rendezvous, sink)
    return {
        "min_nodes": nodes.count,
        "max_nodes": nodes.count,
        "run_id": "tunemill",
        # It takes the numbers of machines as they are given, so that the first has rank 0.
        "rdzv_backend": "static",
        "rdzv_endpoint": nodes.rendezvous,
        "rdzv_configs": {"rank": nodes.rank, "timeout": PATIENCE},
    }


def fault_of_others(nodes: Nodes) -> str:
    """What is said where the first machine computes something else; each rank asks, through the agents' own store."""
    from torch.distributed import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False)
    store.set(f"tunemill/{os.environ['RANK']}", nodes.key)
    keys = [store.get(f"tunemill/{rank}").decode() for rank in range(int(os.environ["WORLD_SIZE"]))]
    other = next((rank for rank, key in enumerate(keys) if key != keys[0]), None)
    if other is None:
        return ""
    return (
        f"the machines compute different things: rank 0 the key {keys[0][:12]}, and rank {other} {keys[other][:12]}. "
        f"Give all of them the same YAML, the same sources and the same versions of libraries; `tunemill plan` on each "
        f"shows its key"
    )


def of_machine(event: dict[str, Any], nodes: Nodes) -> dict[str, Any]:
    """A failure with the machine that it was found on."""
    return {**event, "message": f"on machine {nodes.rank} of {nodes.count}: {event['message']}\n{ELSEWHERE}"}


def not_met(nodes: Nodes, error: Exception) -> str:
    """What is said where the machines cannot meet, such as at a port that another program has taken."""
    return (
        f"pipeline.launcher.rendezvous: the machines cannot meet at {nodes.rendezvous}: {str(error).splitlines()[0]}. "
        f"Give all of them a port that is free on the first, and open to the others"
    )


def _waits(nodes: Nodes) -> str:
    if nodes.rank == 0:
        return f"waits at {nodes.rendezvous} for {nodes.count - 1} more machines"
    return f"machine {nodes.rank} of {nodes.count} looks for the first one at {nodes.rendezvous}"


def fault_of_name(rendezvous: str) -> str:
    """Why a place is none that this machine knows; nothing where it is."""
    host, port = _parts(rendezvous)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return f"this machine knows nobody by the name {host} ({error.strerror})"
    return ""


def _until_it_listens(rendezvous: str, sink: Sink) -> None:
    """Return when somebody listens there. Raises NotMetError where nobody does for too long."""
    began = refused_at = time.monotonic()
    said_at = began
    while True:
        try:
            socket.create_connection(_parts(rendezvous), timeout=LOOK_SECONDS).close()
        except OSError as error:
            now = time.monotonic()
            if isinstance(error, ConnectionRefusedError):
                refused_at = now
            waited = f"nobody listens at {rendezvous} for {now - began:.0f} s ({error.strerror or error})"
            if now - refused_at > UNANSWERED_SECONDS or now - began > PATIENCE:
                raise NotMetError(waited) from error
            if now - said_at >= REMIND_SECONDS:
                said_at = now
                sink({"type": "log", "message": f"{waited}: is that the first machine, and at work?"})
            time.sleep(LOOK_SECONDS)
        else:
            return


def _parts(rendezvous: str) -> tuple[str, int]:
    host, _, port = rendezvous.rpartition(":")
    return host.strip("[]"), int(port)
