"""Preference rows for tests: raw datasets written by hand, and the stages run on them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from support.rows import Events, read_arrow, run_stage
from tunemill.stages.artifacts import Preferences, RawDataset, Tokenizer
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.lengths import SCHEMAS
from tunemill.stages.data.preferences.records import common_start
from tunemill.stages.data.preferences.stage import PREFERENCES
from tunemill.stages.data.rows.token_rows import open_writer

TOKENIZERS = Path(__file__).parents[1] / "golden" / "tokenizers"
RAW_SCHEMA = pa.schema([("row", pa.string()), ("line", pa.int64()), ("file", pa.string())])


def write_raw(folder: Path, rows: list[Any], batch: int = 3, unit: str = "line") -> RawDataset:
    """A raw dataset, `batch` rows in each Arrow batch."""
    folder.mkdir(parents=True)
    with open_writer(folder / "rows.arrow", RAW_SCHEMA.with_metadata({"unit": unit})) as writer:
        for first in range(0, len(rows), batch):
            part = rows[first : first + batch]
            columns = [
                [json.dumps(row, ensure_ascii=False) for row in part],
                list(range(first + 1, first + 1 + len(part))),
                [""] * len(part),
            ]
            writer.write_batch(pa.record_batch(columns, schema=RAW_SCHEMA))
    return RawDataset(folder)


def prepare(
    folder: Path, rows: list[Any], tokenizer: str | Path = "chatml", **keys: Any
) -> tuple[Preferences, Events]:
    """Run the preferences stage on rows, with one of the golden tokenizers; `rl` is dpo unless given."""
    if "reward_model" not in keys:
        keys = {"rl": "dpo", **keys}
    raw = write_raw(folder / "raw", rows)
    place = tokenizer if isinstance(tokenizer, Path) else TOKENIZERS / tokenizer
    config = PreferencesConfig(**keys)
    return run_stage(PREFERENCES, config, folder / "prepared", dataset=raw, tokenizer=Tokenizer(place))


def texts(artifact: Preferences) -> list[tuple[Any, ...]]:
    """(prompt, chosen, rejected), or (prompt, completion, label), of each row."""
    rows = read_arrow(artifact.rows)
    names = [name for name in ("prompt", "chosen", "rejected", "completion", "label") if name in rows[0]]
    return [tuple(row[name] for name in names) for row in rows]


def write_pairs(folder: Path, pairs: list[tuple[str, str, str]], batch: int = 3) -> Preferences:
    """Prepared pairs in which every character is a token."""
    folder.mkdir(parents=True)
    schema = SCHEMAS["pair"]
    with open_writer(folder / "rows.arrow", schema) as writer:
        for first in range(0, len(pairs), batch):
            part = pairs[first : first + batch]
            prompts, chosen, rejected = zip(*part, strict=True)
            columns = {
                "source_row": range(first + 1, first + 1 + len(part)),
                "tokens": [len(p) + max(len(c), len(r)) for p, c, r in part],
                "prompt": prompts,
                "chosen": chosen,
                "rejected": rejected,
                "prompt_tokens": [len(p) for p in prompts],
                "chosen_ends": [list(range(1, len(text) + 1)) for text in chosen],
                "rejected_ends": [list(range(1, len(text) + 1)) for text in rejected],
                "chosen_quiet": [0] * len(part),
                "rejected_quiet": [0] * len(part),
                "same_tokens": [len(common_start(*texts)) for texts in zip(chosen, rejected, strict=True)],
            }
            arrays = [pa.array(columns[name], schema.field(name).type) for name in schema.names]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    return Preferences(folder)
