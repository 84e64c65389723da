"""Keys of Axolotl in entries of datasets that no stage reads: refused with what to write, or noted."""

from collections.abc import Callable, Iterator
from typing import Any

from tunemill.pipelines.config.dataset_entries import dataset_entries, entry_of
from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.problems import Kind, Problem, given

# Key -> the kind of problem, and what is said of a value.
REFUSED: dict[str, tuple[Kind, Callable[[Any], str]]] = {
    "input_transform": (
        "removed",
        lambda _: (
            "was read with type: messages alone, which is gone; write type: chat_template, and take it out"
        ),
    ),
    "train_on_split": (
        "removed",
        lambda value: (
            f"is read by nobody, and in Axolotl every split would be taken; write split: {given(value)}"
        ),
    ),
}
# Key -> why nothing reads it.
IDLE = {
    "input_format": "Axolotl does not read it either",
    "streaming": "rows are prepared once, on disk, and read from there",
    "strict": "Axolotl does not read it either",
}


def entry_keys(document: Document) -> Iterator[Problem]:
    """What is said of such keys that are set to more than off."""
    for place, entry in dataset_entries(document.data):
        for key, value in entry.items() if isinstance(entry, dict) else ():
            if key in REFUSED and value is not None:
                kind, said = REFUSED[key]
                yield problem_at((*place, key), document, kind, said(value))
            elif key in IDLE and value not in (None, False):
                yield problem_at((*place, key), document, "idle", f"asks for nothing: {IDLE[key]}")


def is_known(place: KeyPath) -> bool:
    """Whether `entry_keys` says what there is to say of a key."""
    return bool(entry_of(place)) and (place[-1] in REFUSED or place[-1] in IDLE)
