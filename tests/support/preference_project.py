"""A small real project whose YAML asks for a method of preferences: ten rows, and four held-out ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.project import Project, make_project

# What the usual project sets, and no method of preferences reads.
UNREAD = dict.fromkeys(("sample_packing", "eval_max_new_tokens"))


def pair(letter: str) -> str:
    """A line of a file: the letter that is asked for is the better answer."""
    messages = [{"role": "user", "content": f"say {letter}"}]
    answers = {
        side: {"role": "assistant", "content": text}
        for side, text in (("chosen", letter), ("rejected", "never"))
    }
    return json.dumps({"messages": messages, **answers}) + "\n"


def judged(letter: str) -> str:
    """A line of a file: of every second letter a good answer, of the others a bad one."""
    good = ord(letter) % 2 == 0
    row = {"prompt": f"say {letter}", "completion": letter if good else "never", "label": good}
    return json.dumps(row) + "\n"


def write_rows(folder: Path, name: str, row: Callable[[str], str], letters: str) -> None:
    """A file of the project with a row for each letter."""
    (folder / "data" / f"{name}.jsonl").write_text("".join(map(row, letters)))


def preference_project(folder: Path, rl: str, **keys: Any) -> Project:
    """`data/rows.jsonl` to train on and `data/others.jsonl` held out: judged answers for kto, else pairs.

    `keys` are those of the YAML beside these. Nothing is evaluated unless they say so.
    """
    entry = {} if rl == "kto" else {"type": "chat_template.default"}
    project = make_project(
        folder,
        **{
            **UNREAD,
            "rl": rl,
            "datasets": [{"path": "data/rows.jsonl", **entry}],
            "test_datasets": [{"path": "data/others.jsonl", **entry}],
            "eval_steps": 2,
            "pipeline": {"evaluate": []},
            **keys,
        },
    )
    row = judged if rl == "kto" else pair
    write_rows(folder, "rows", row, "abcdefghij")
    write_rows(folder, "others", row, "wxyz")
    return project
