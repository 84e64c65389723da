"""Preference data as the data stages write it: texts, in training order."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from tunemill.stages.artifacts import PreferenceData

Texts = tuple[str, str, str]
LETTERS = "abcdefghijklmnopqrst"


def preference_data(folder: Path, rows: Sequence[Texts], held_out: Sequence[Texts] = ()) -> PreferenceData:
    """(prompt, chosen, rejected) as `rows.arrow`; those that are held out beside them, if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in (("rows", rows), ("held_out", held_out)):
        if texts or name == "rows":
            columns = list(zip(*texts, strict=True)) or [(), (), ()]
            kinds = [pa.array(column, pa.string()) for column in columns]
            table = pa.table(dict(zip(("prompt", "chosen", "rejected"), kinds, strict=True)))
            with (
                pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file,
                pa.ipc.new_file(file, table.schema) as out,
            ):
                # Two record batches: no reader may count on one.
                out.write_table(table, max_chunksize=max(1, (len(texts) + 1) // 2))
    return PreferenceData(folder)


def echoes(letters: str = LETTERS) -> list[Texts]:
    """Pairs in which the letter that is asked for is the better answer, and a fixed word the worse one."""
    return [
        (f"<|im_start|>user\nsay {letter}<|im_end|>\n<|im_start|>assistant\n", f"{letter}{letter}", "never")
        for letter in letters
    ]
