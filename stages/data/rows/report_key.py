"""How much is found out about the quality of rows."""

from typing import Annotated, Literal

from tunemill.stages.declaration import YamlMark

DataReport = Annotated[Literal["cheap", "full"], YamlMark("pipeline.data_report")]
DESCRIPTION = (
    "figures of the rows' quality: cheap ones, or full: also scripts, rows that are nearly alike, and test_datasets "
    "compared with what is trained on"
)
