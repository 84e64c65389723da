"""The body of the prompt_data stage: leave out prompts that are too long, merge, shuffle."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunemill.stages.artifacts import Prompts
from tunemill.stages.data.prompt_data.config import PromptDataConfig
from tunemill.stages.data.rows.order import shuffled
from tunemill.stages.data.rows.prompt_rows import OF_ALL
from tunemill.stages.data.rows.quality import Figure, say_quality
from tunemill.stages.data.rows.tally import dataset_names, plot_lengths
from tunemill.stages.data.rows.token_rows import open_writer
from tunemill.stages.errors import RowError
from tunemill.stages.report import Report, Scalar, Workspace

LISTED_ROWS = 10


def prompt_data(config: PromptDataConfig, tokenized: list[Prompts], out: Workspace, report: Report) -> None:
    """Write `rows.arrow` and, with val_set_size, `held_out.arrow`.

    Raises RowError where nothing is left to learn from, and for long prompts where they must not be.
    """
    names = dataset_names(config.datasets, len(tokenized))
    parts = [_read(one, number) for number, one in enumerate(tokenized, 1)]
    merged = pa.concat_tables(parts)
    lengths = pc.list_value_length(merged["prompt_ids"]).to_numpy().astype(np.int64)
    fits = lengths <= config.sequence_len
    if config.excess_length_strategy == "raise" and not fits.all():
        raise RowError(_long(merged.filter(pa.array(~fits)), config.sequence_len, names))
    kept = merged.filter(pa.array(fits))
    if not len(kept):
        raise RowError(
            f"nothing is left to learn from: all {len(merged)} prompts are longer than sequence_len: "
            f"{config.sequence_len} (the shortest has {lengths.min()} tokens). Raise sequence_len"
        )
    if config.shuffle_merged_datasets and not config.curriculum_sampling:
        kept = kept.take(pa.array(shuffled(len(kept), config.seed)))
    border = len(kept) - _held_out(config.val_set_size, len(kept))
    learned, held_out = kept.slice(0, border), kept.slice(border)
    _write(learned, out.data / "rows.arrow")
    if len(held_out):
        _write(held_out, out.data / "held_out.arrow")
        report.summary(held_out_rows=len(held_out))
        _say_both(learned, held_out, report)
    report.summary(rows=len(learned), dropped_too_long=len(merged) - len(kept))
    plot_lengths(lengths, config.sequence_len, "sequence_len", report)
    steps = {"rows": merged, "kept": learned, **({"held out": held_out} if len(held_out) else {})}
    counts = [np.bincount(one["dataset"].to_numpy(), minlength=len(names) + 1) for one in steps.values()]
    lines: list[list[Scalar]] = [
        [name, *(int(count[number]) for count in counts)] for number, name in enumerate(names, 1)
    ]
    report.table("Prompts by dataset", ["dataset", *steps], lines)


def _held_out(val_set_size: float, rows: int) -> int:
    """How many of the prompts are held out: the last ones. Raises RowError where none is left to learn from."""
    count = int(val_set_size) if val_set_size > 1 else int(np.ceil(val_set_size * rows))
    if count >= rows:
        raise RowError(
            f"val_set_size: {val_set_size:g} would hold out {count} of {rows} prompts and leave none to learn from; "
            f"make it smaller"
        )
    return count


def _write(rows: pa.Table, path: Path) -> None:
    with open_writer(path, OF_ALL) as writer:
        writer.write_table(rows.combine_chunks())


def _say_both(learned: pa.Table, held_out: pa.Table, report: Report) -> None:
    """How many held-out prompts are learned from too."""
    seen = set(learned["prompt"].to_pylist())
    both = sum(one in seen for one in held_out["prompt"].to_pylist())
    if both:
        title = "held-out prompts that are learnt from too"
        say_quality([Figure(title, both, len(held_out), "held_out_rows_learnt_from")], report)


def _read(prompts: Prompts, number: int) -> pa.Table:
    with pa.memory_map(str(prompts.rows)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    dataset = pa.array(np.full(len(table), number, np.int32))
    return table.append_column("dataset", dataset).select(OF_ALL.names).cast(OF_ALL)


def _long(rows: pa.Table, longest: int, names: list[str]) -> str:
    lines = [
        f"  {names[row['dataset'] - 1]}, row {row['source_row']}: {len(row['prompt_ids'])} tokens"
        for row in rows.slice(0, LISTED_ROWS).to_pylist()
    ]
    more = f"\n  and {len(rows) - LISTED_ROWS} more" if len(rows) > LISTED_ROWS else ""
    return (
        f"{len(rows)} prompts are longer than sequence_len: {longest}, and excess_length_strategy: raise forbids it "
        "(drop would leave them out):\n" + "\n".join(lines) + more
    )
