"""One process that publishes without end: `python publishing.py STATE PIPELINE SECONDS`, and says what it lost.

It makes artifacts, points a node to each, points it back to an older one that may be gone, and looks whether what
its node names is there.
"""

import sys
import time
from pathlib import Path
from typing import Any

from tunemill.resources.canonical import hash_document
from tunemill.resources.refs import Ref
from tunemill.resources.store import KEY_PARTS, Published, Store


def document(name: str) -> dict[str, Any]:
    """A key document of its own."""
    return {part: {} for part in KEY_PARTS} | {"stage": "stage", "version": name}


def point(store: Store, pipeline: str, published: Published) -> None:
    store.refs.write(pipeline, "node", Ref(published.stage, published.key, published.digest))


def publish(store: Store, name: str, pipeline: str) -> Published:
    """Make an artifact and point the pipeline's node to it."""
    made, key = document(name), hash_document(document(name))
    facts = {"pipeline": pipeline, "node": "node", "inputs": {}, "metrics": {}, "seconds": 1.0}
    with store.building("stage", key, print) as building:
        (building.data / "rows.txt").write_text(name)
        ready = store.prepare(building, made, facts, lambda digest: {"digest": digest})
        with store.unpruned():
            published = store.publish(building, ready)
            point(store, pipeline, published)
    return published


def take(store: Store, name: str, pipeline: str) -> bool:
    """Point the pipeline's node to an artifact that may be there."""
    with store.unpruned():
        found = store.lookup("stage", hash_document(document(name)))
        if isinstance(found, Published):
            point(store, pipeline, found)
    return isinstance(found, Published)


def main(state: str, pipeline: str, seconds: str) -> int:
    store, ends, number, taken = Store(Path(state)), time.monotonic() + float(seconds), 0, 0
    while time.monotonic() < ends:
        published = publish(store, f"{pipeline} {number}", pipeline)
        assert isinstance(store.lookup("stage", published.key), Published), f"lost: {published.key}"
        for older in range(max(0, number - 3), number):
            if take(store, f"{pipeline} {older}", pipeline):
                taken += 1
                ref = store.refs.read(pipeline, "node")
                assert ref is not None
                found = store.lookup(ref.stage, ref.key)
                assert isinstance(found, Published), f"lost: {ref.key}"
                assert (found.data / "rows.txt").read_text() == f"{pipeline} {older}"
        number += 1
    print(number, taken)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
