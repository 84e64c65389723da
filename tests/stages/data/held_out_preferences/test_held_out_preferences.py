"""What `val_set_size` holds out of preferences, by itself."""

from pathlib import Path

import pyarrow as pa
from support.pairs import echoes, preference_data
from support.tiny_model import Heard, workspace

from tunemill.stages.data.held_out_preferences.body import held_out_preferences
from tunemill.stages.declaration import StageConfig


def test_it_depends_on_the_held_out_rows_alone(tmp_path: Path) -> None:
    written = []
    for name, trained in (("few", "ab"), ("many", "abcdef")):
        data = preference_data(tmp_path / name, echoes(trained), held_out=echoes("xyz"))
        out, heard = workspace(tmp_path / f"{name}_out"), Heard()
        held_out_preferences(StageConfig(), training_data=data, out=out, report=heard.report)
        (file,) = out.data.iterdir()
        written.append(file.read_bytes())
        assert heard.summary == {"rows": 3}
    assert written[0] == written[1]
    with pa.ipc.open_file(pa.BufferReader(written[0])) as rows:
        table = rows.read_all()
    assert list(zip(*table.to_pydict().values(), strict=True)) == echoes("xyz")
