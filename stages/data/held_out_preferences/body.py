"""The body of the held_out_preferences stage."""

import shutil

import pyarrow as pa

from tunemill.stages.artifacts import PreferenceData
from tunemill.stages.declaration import StageConfig
from tunemill.stages.report import Report, Workspace


def held_out_preferences(
    _config: StageConfig, training_data: PreferenceData, out: Workspace, report: Report
) -> None:
    """Write the held-out rows as `rows.arrow`.

    So what is scored on them depends on these rows alone: their digest stays while those that are learnt from change.
    """
    shutil.copyfile(training_data.held_out, out.data / "rows.arrow")
    with pa.ipc.open_file(pa.memory_map(str(training_data.held_out))) as rows:
        report.summary(rows=rows.count_rows())
