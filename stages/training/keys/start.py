"""The key of where training begins: in the middle of another run."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from tunemill.stages.declaration import Fault, Source, StageConfig

# What the Trainer of transformers goes on from, and what each is for.
FILES = {
    "trainer_state.json": "the steps that were taken",
    "optimizer.pt": "the optimizer",
    "scheduler.pt": "the schedule",
}
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


def fault_of_checkpoint(folder: Path) -> str | None:
    """Why training cannot go on from a folder; None where it can."""
    lacking = [f"{name} ({what})" for name, what in FILES.items() if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in WEIGHTS):
        lacking.insert(0, "weights as safetensors")
    if not lacking:
        return None
    return (
        f"{folder} is no checkpoint to go on from: it lacks {', '.join(lacking)}. Name a folder checkpoint-N that a "
        "Trainer wrote with its optimizer; of a finished model, make it the base_model"
    )


class StartKeys(StageConfig):
    """Steps that another run has taken."""

    resume_from_checkpoint: Source[str | None] = Field(
        None,
        description="folder checkpoint-N of another run over the same data: its steps count as taken. An interrupted "
        "run goes on by itself, and needs no such key",
    )

    def faults(self) -> Iterator[Fault]:
        """A folder that is no checkpoint."""
        yield from super().faults()
        folder = self.resume_from_checkpoint and Path(self.resume_from_checkpoint)
        if folder and folder.is_dir() and (reason := fault_of_checkpoint(folder)):
            yield Fault("resume_from_checkpoint", reason)
