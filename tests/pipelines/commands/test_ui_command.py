"""`tunemill ui` before and after Dagster: what stops it at once, and what ends it."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

CLI = [sys.executable, "-m", "tunemill.pipelines.cli"]


def run_ui(*arguments: str):
    return subprocess.run([*CLI, "ui", *arguments], capture_output=True, text=True, timeout=60)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    done = run_ui(str(tmp_path / "nowhere"))
    assert done.returncode == 1 and "no such folder of pipelines" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_is_an_error_at_once(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_ui(str(tmp_path), "--port", str(port))
    assert done.returncode == 1 and done.stderr.startswith(f"port {port} on 127.0.0.1:")
    assert "--port" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "٣"])
def test_what_is_no_port_is_wrong_usage(tmp_path, port):
    done = run_ui(str(tmp_path), f"--port={port}")
    assert done.returncode == 2 and "1 to 65535" in done.stderr


@pytest.mark.slow
def test_a_folder_without_a_pipeline_is_served_and_told(tmp_path):
    (tmp_path / "notes.yml").write_text("a: 1\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*CLI, "ui", str(tmp_path), "--port", str(port)], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert "no pipeline in this folder" in server.stderr.readline()
    server.terminate()
    server.stderr.close()
    server.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_started_from_a_script_ends_on_interrupt_and_term(tmp_path, number):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    command = shlex.join([*CLI, "ui", str(tmp_path), "--port", str(port), "--state", str(tmp_path / "state")])
    # A shell without job control ignores the interrupt in what it starts with `&`.
    started = subprocess.run(
        ["sh", "-c", f"{command} > {shlex.quote(str(log))} 2>&1 & echo $!"], capture_output=True, text=True
    )
    server = int(started.stdout)
    wait_until(lambda: "Serving dagster-webserver" in log.read_text(), 90)
    os.kill(server, number)
    wait_until(lambda: not serves(port) and not alive(server), 40)


def wait_until(holds, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def alive(process: int) -> bool:
    try:
        return re.search(r"\) (\S)", Path(f"/proc/{process}/stat").read_text())[1] != "Z"
    except FileNotFoundError:
        return False


def serves(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0
