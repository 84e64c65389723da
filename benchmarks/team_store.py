"""A team's store: the time of a hit of a large model, and lookups a second. Python benchmarks/team_store.py [FILE.md]

The objects lie in an S3 server of this machine (moto's, which is written in Python and keeps them in memory) and in a
folder; a network is not measured. `--gigabytes N` is the size of the model, `--nodes N` how many are looked up.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunemill.resources.canonical import hash_document
from tunemill.resources.store import KEY_PARTS, Published, Store
from tunemill.resources.team_entry import TeamEntry
from tunemill.resources.team_store import manifest_name

FACTS = {"pipeline": "bench", "node": "n", "inputs": {}, "metrics": {}, "seconds": 1.0}


def document(name: str) -> dict[str, Any]:
    return {part: {} for part in KEY_PARTS} | {"stage": "stage", "version": name}


def serve(told: Any) -> None:
    """An S3 server in a process of its own, so that it does not share the interpreter's lock."""
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
    )
    client.create_bucket(Bucket="team")
    told.send(endpoint)
    told.recv()


@contextmanager
def s3() -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": ours.recv(),
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        yield "s3://team/bench"
    finally:
        process.kill()
        process.join()


def seconds_of(do: Callable[[], Any]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def quiet(_: str) -> None:
    pass


def model_rows(url: str, size: int, folder: Path) -> Iterator[tuple[str, str]]:
    """The times of a model of some bytes."""
    one, two = (Store(folder / name).before(url) for name in ("one", "two"))
    key = hash_document(document("model"))
    alone = Store(folder / "one")
    with alone.building("stage", key, quiet) as building:
        block = os.urandom(1 << 20)
        for part in range(2):
            with (building.data / f"model-{part}.safetensors").open("wb") as file:
                for _ in range(size // 2 >> 20):
                    file.write(block)
        ready = alone.prepare(building, document("model"), FACTS, lambda _: {})
        made = alone.publish(building, ready)
    yield "publish it", f"{seconds_of(lambda: one.share(made, quiet)):.1f} s"
    found = []
    yield "find it, not here", f"{seconds_of(lambda: found.append(two.lookup('stage', key))) * 1e3:.1f} ms"
    yield "bring it, with every checksum", f"{seconds_of(lambda: two.bring(found[0], quiet)):.1f} s"
    yield "find it, here", f"{seconds_of(lambda: two.lookup('stage', key)) * 1e3:.2f} ms"
    shutil.rmtree(folder / "one", ignore_errors=True)


def lookup_rows(url: str, nodes: int, folder: Path) -> Iterator[tuple[str, str]]:
    """The times of many nodes, which are there alone."""
    one = Store(folder / "looks").before(url)
    assert one.team is not None
    keys = [hash_document(document(f"node {number}")) for number in range(nodes)]
    for number, key in enumerate(keys):
        manifest = {"stage": "many", "key": key, "digest": key, "files": {}, **FACTS}
        entry = TeamEntry(manifest, document(f"node {number}"), {}, "abc", 0)
        one.team.objects.create(manifest_name("many", key), entry.as_bytes())

    def all_there(store: Store) -> None:
        assert all(isinstance(store.lookup("many", key), Published) for key in keys)

    def rate(do: Callable[[], Any]) -> str:
        seconds = seconds_of(do)
        return f"{seconds:.2f} s, {nodes / seconds:,.0f} a second"

    yield f"{nodes} lookups, one after the other, for the first time", rate(lambda: all_there(one))
    again = Store(folder / "looks").before(url)
    yield "the same in the next process, manifests known", rate(lambda: all_there(again))
    fresh = Store(folder / "ahead").before(url)
    assert fresh.team is not None
    ahead = fresh.team.look_ahead
    yield "all at once, for the first time (`status`)", rate(lambda: ahead([("many", key) for key in keys]))
    missing = [("many", hash_document(document(f"missing {number}"))) for number in range(nodes)]
    yield "of what is not there", rate(lambda: [fresh.lookup(*place) for place in missing])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", nargs="?", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--in-bucket", type=float, help="gigabytes of the model in the S3 server")
    parser.add_argument("--nodes", type=int, default=2000)
    options = parser.parse_args()
    load, large = os.getloadavg()[0], options.gigabytes
    lines = [f"# A team's store\n\n{os.cpu_count()} cores, load {load:.1f}."]
    with tempfile.TemporaryDirectory() as folder, s3() as bucket:
        (Path(folder) / "shared").mkdir()
        shared = f"file://{folder}/shared"
        for what, url, size in (
            ("a folder", shared, large),
            ("S3 (moto)", bucket, options.in_bucket or large),
        ):
            lines.append(f"\n## {what}, a model of {size:g} GB\n\n| what | time |\n|---|---|")
            work = Path(folder) / what
            for rows in (lookup_rows(url, options.nodes, work), model_rows(url, int(size * 1e9), work)):
                for name, told in rows:
                    lines.append(f"| {name} | {told} |")
                    print(lines[-1], flush=True)
    if options.result is not None:
        options.result.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
