"""The dataset stage: rows of one file as a snapshot."""

from tunemill.stages.artifacts import RawDataset
from tunemill.stages.dataset.config import DatasetConfig
from tunemill.stages.declaration import Stage

DATASET = Stage(
    name="dataset",
    version=1,
    config=DatasetConfig,
    inputs={},
    output=RawDataset,
    body="tunemill.stages.dataset.body:dataset",
    kinds=("arrow",),
    description="The rows of one local file, validated, each as compact JSON text.",
)
