"""The text of a new YAML for rows that have been looked at."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemill.pipelines.commands.row_kinds import BYTES_PER_TOKEN, Kind
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.stages.data.rows.spelled import spelled

SHORTEST, LONGEST = 512, 4096
HELD_OUT_SHARE, MOST_HELD_OUT = 0.05, 500
# Held out of rows that have not been counted, of which there are many.
HELD_OUT = 200
# As texts: Python would write 5e-05.
LEARNING_RATES = {"tokens": "0.0002", "pair": "0.00005", "rated": "0.00005"}
LARGEST_CONFIG = 1 << 20


def new_yaml(kinds: Sequence[Kind], base_model: str, folder: Path, stem: str) -> str:
    """The YAML for files of the same goal, to lie in `folder` as `<stem>.yml`."""
    goal, is_sft = kinds[0].goal, not kinds[0].goal.settings
    renders = any(str(kind.keys.get("type")).startswith("chat_template") for kind in kinds)
    is_local = Path(os.path.expanduser(base_model)).is_dir()  # noqa: PTH111  a user that there is not is a name
    model, limit = _local_model(base_model, folder) if is_local else (base_model, LONGEST)
    lines = [
        "# Written by `tunemill init`. Names of files are seen from this file's folder.",
        *(f"# {_comment(kind.path.name)}: {_comment(kind.said)}" for kind in kinds),
        "",
        *_base_model(model, is_local=is_local),
        "",
        *(f"{key}: {spelled(value)} # {goal.rows}" for key, value in goal.settings.items()),
        "datasets:",
        *(line for kind in kinds for line in _entry(kind, folder)),
        *_held_out(kinds),
        "",
        *_sequences(kinds, limit, renders=renders, packs=is_sft),
        "",
        "adapter: lora # trains a small adapter and merges it; without these lines every weight is trained",
        "lora_r: 16 # its rank",
        "lora_alpha: 32 # its scale: alpha / r",
        # Some methods that compare answers leave nothing out.
        *(["lora_dropout: 0.05"] if is_sft else []),
        "lora_target_linear: true # on every linear module",
        "",
        "micro_batch_size: 2 # sequences computed at a time: fewer need less memory",
        "gradient_accumulation_steps: 4 # times that, 8 sequences a step",
        "num_epochs: 3 # passes over the rows",
        f"learning_rate: {LEARNING_RATES[kinds[0].shape.goal]} # at its peak: it warms up, then falls",
        "",
        *(["eval_strategy: epoch # the loss on the held-out rows after each pass"] if _share(kinds) else []),
        f"output_dir: {spelled(f'out/{stem}')} # links to the results are put here",
        *_bad_rows([kind for kind in kinds if kind.strays]),
    ]
    return "\n".join(lines) + "\n"


def _bad_rows(strays: Sequence[Kind]) -> list[str]:
    """What to do with rows of another kind, where some were seen."""
    seen = [
        f"# Of {_comment(kind.path.name)} rows of another kind: {kind.strays} of the {kind.looked} looked at "
        f"({_comment(kind.first_stray)})."
        for kind in strays
    ]
    skip = "  bad_rows: skip # sets such rows aside; without it they are named, and nothing is trained"
    return ["", *seen, "pipeline:", skip] if seen else []


def _comment(text: str) -> str:
    """Text for a comment: a name may hold anything, also the end of a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _base_model(model: str, *, is_local: bool) -> list[str]:
    if is_local or model.startswith(ASSET_SCHEME):
        return [f"base_model: {spelled(model)} # the model to start from"]
    return [
        "# The model to start from, fetched from the Hugging Face Hub when this runs first. Name another",
        "# one there, or a folder with config.json, safetensors and tokenizer.",
        f"base_model: {spelled(model)}",
    ]


def _local_model(base_model: str, folder: Path) -> tuple[str, int]:
    """The name of a model's folder seen from another folder, and the longest sequence that it takes."""
    local = Path(os.path.expanduser(base_model))  # noqa: PTH111  a user that there is not is a name
    return seen_from(local, folder), min(LONGEST, _positions(local / "config.json"))


def _positions(config: Path) -> int:
    """How many tokens a model can take at once, as far as its config says so."""
    try:
        with config.open("rb") as file:
            found = json.loads(file.read(LARGEST_CONFIG))
    except (OSError, ValueError):
        return LONGEST
    places = [found, found.get("text_config")] if isinstance(found, dict) else []
    values = [place.get("max_position_embeddings") for place in places if isinstance(place, dict)]
    return next((value for value in values if isinstance(value, int) and value > 0), LONGEST)


def seen_from(path: Path, folder: Path) -> str:
    """A path relative to a folder, as a YAML there names it: `..` leads to where a folder really lies."""
    whole = Path(os.path.realpath(path.absolute().parent)) / path.absolute().name
    name = os.path.relpath(whole, os.path.realpath(folder))
    return f"./{name}" if name.startswith("~") or name == "." else name


def _entry(kind: Kind, folder: Path) -> list[str]:
    path = f"  - path: {spelled(seen_from(kind.path, folder))}"
    if not kind.keys:
        are_tokens = "input_ids" in kind.shape.fields
        why = "its rows are tokens already" if are_tokens else "its fields are those that are read"
        return [f"{path} # without type: {why}"]
    return [path, *(f"    {key}: {_value(value)}" for key, value in kind.keys.items())]


def _value(value: Any) -> str:
    return spelled(value if isinstance(value, Mapping | list) else str(value))


def _share(kinds: Sequence[Kind]) -> float:
    """What to hold out: a share, or a number of rows; 0 where there are too few."""
    counts = [kind.count for kind in kinds]
    if any(count is None for count in counts):
        return HELD_OUT
    total = sum(count for count in counts if count is not None)
    if total < 2:
        return 0
    return MOST_HELD_OUT if total * HELD_OUT_SHARE > MOST_HELD_OUT else HELD_OUT_SHARE


def _held_out(kinds: Sequence[Kind]) -> list[str]:
    share = _share(kinds)
    if share == 0:
        return [
            f"# val_set_size: {HELD_OUT_SHARE} # a share of the rows to evaluate on: of a single row there is none"
        ]
    what = "share of the rows" if share < 1 else "rows"
    return [f"val_set_size: {share:g} # {what} held out: never trained on, only evaluated on"]


def _sequences(kinds: Sequence[Kind], limit: int, *, renders: bool, packs: bool) -> list[str]:
    longest = max(kind.longest for kind in kinds)
    length = min(limit, max(SHORTEST, 2 ** math.ceil(math.log2(max(longest, 1)))))
    beyond = "cut into several" if kinds[0].keys.get("type") == "completion" else "left out and counted"
    bytes_each = (
        "" if "input_ids" in kinds[0].shape.fields else f", at {BYTES_PER_TOKEN} bytes of text a token"
    )
    lines = [
        f"# Tokens of a sequence: a power of two from {min(SHORTEST, limit)} to {limit}. The longest row looked at has",
        f"# about {longest:,}{bytes_each}; longer rows are {beyond}.",
        f"sequence_len: {length}",
    ]
    if renders:
        template = "chat_template: tokenizer_default_fallback_chatml # the tokenizer's own, or chatml where it has none"
        lines = [template, *lines]
    if packs:
        lines.append("sample_packing: true # several rows share a sequence, and do not see each other")
    return lines
