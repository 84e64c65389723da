"""The `hub_files` stage: files of a model's repository on the Hub, at one commit."""

from pathlib import Path

from tunemill.stages.artifacts import FetchedModel
from tunemill.stages.declaration import Stage
from tunemill.stages.models.hub_files.config import HubFilesConfig


def interrupted(checkpoints: Path) -> Path | None:
    """The folder of what an interrupted attempt has fetched."""
    folder = checkpoints / "files"
    return folder if folder.is_dir() else None


HUB_FILES = Stage(
    name="hub_files",
    version=1,
    config=HubFilesConfig,
    inputs={},
    output=FetchedModel,
    body="tunemill.stages.models.hub_files.body:hub_files",
    kinds=("huggingface",),
    description="Files of one repository of the Hugging Face Hub at one commit, each checked against its hash there.",
    prepares_data=True,
    shown_as="nothing",
    idle_without="base_model is no model of the Hub, so nothing is fetched",
    resumes_from=interrupted,
)
