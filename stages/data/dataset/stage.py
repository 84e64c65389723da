"""The dataset stage: rows of one source as a snapshot."""

from tunemill.stages.artifacts import RawDataset
from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.rows.checks import OF_FILE
from tunemill.stages.declaration import Stage

DATASET = Stage(
    name="dataset",
    version=5,
    config=DatasetConfig,
    inputs={},
    output=RawDataset,
    body="tunemill.stages.data.dataset.body:dataset",
    kinds=("arrow",),
    description="The rows of one source, validated, each as compact JSON text.",
    prepares_data=True,
    traces="tunemill.stages.data.rows.trace_body:trace_to_source",
    shown_as="nothing",
    checks=OF_FILE,
)
