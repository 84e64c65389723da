"""The dataset stage: rows of one source as a snapshot."""

from tunemill.stages.artifacts import RawDataset
from tunemill.stages.dataset.config import DatasetConfig
from tunemill.stages.declaration import Stage

DATASET = Stage(
    name="dataset",
    version=2,
    config=DatasetConfig,
    inputs={},
    output=RawDataset,
    body="tunemill.stages.dataset.body:dataset",
    kinds=("arrow",),
    description="The rows of one source, validated, each as compact JSON text.",
)
