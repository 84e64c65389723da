"""Which rows belong together: by a field of the dataset that they come from."""

from pathlib import Path

import pyarrow as pa

from tunemill.stages.data.rows.raw_rows import raw_batches
from tunemill.stages.errors import SettingError


def groups_of(field: str, dataset: Path, sources: Path) -> list[str | None]:
    """Of each row of evaluation data the field of its row in the dataset, as text; None where that has none.

    `sources` says which row that is. Raises SettingError where no row has the field.
    """
    with pa.memory_map(str(sources)) as mapped:
        numbers = pa.ipc.open_file(mapped).read_all().column("source_row").to_pylist()
    wanted = set(numbers)
    found: dict[int, str] = {}
    for batch in raw_batches(dataset, "data"):
        for row in batch:
            value = row.value.get(field)
            if row.number in wanted and value is not None:
                found[row.number] = str(value)
    if not found:
        raise SettingError(
            f"group: none of {len(numbers)} rows has a field {field}. Name one of their fields"
        )
    return [found.get(number) for number in numbers]
