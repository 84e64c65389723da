"""Where the steps of a training begin: at a checkpoint of its own, at one of another run, or at none."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.checkpoints import checkpoint_folders, last_complete, step_of
from tunemill.stages.training.keys.start import fault_of_checkpoint
from tunemill.stages.training.keys.training import TrainingKeys


def with_checkpoints_of_all(out: Workspace, report: Report) -> Workspace:
    """The folders, with the checkpoints of the first process. Machines that share no disk have none to go on from."""
    shared = ranks.shared_folder(out.checkpoints)
    if shared is not None:
        return replace(out, checkpoints=shared)
    report.log(
        "the machines share no folder for checkpoints, so this training begins at its first step, and would again"
    )
    if ranks.is_first_here():
        for folder in checkpoint_folders(out.checkpoints):
            shutil.rmtree(folder)
    ranks.wait_for_all()
    return out


def start_of(config: TrainingKeys, checkpoints: Path, total: int, report: Report) -> str | None:
    """The checkpoint to go on from. Raises SettingError for a folder of another run that leaves nothing to train."""
    # The first process removes torn ones.
    with ranks.first_before_others():
        own = last_complete(checkpoints)
    if own is not None:
        report.log(f"resuming from {own.name} of {total} steps")
        report.checkpoint(f"step {step_of(own)} of {total}")
        return str(own)
    if config.resume_from_checkpoint is None:
        return None
    folder = Path(config.resume_from_checkpoint)
    if reason := fault_of_checkpoint(folder):
        raise SettingError(f"resume_from_checkpoint: {reason}.")
    taken = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8")).get("global_step", 0)
    if taken >= total:
        raise SettingError(
            f"resume_from_checkpoint: {folder} has taken {taken} steps, and this training has {total}. Raise max_steps "
            f"or num_epochs, or take the key out."
        )
    report.log(f"going on from step {taken} of {total}, which {folder} has taken")
    report.summary(steps_taken_before=taken)
    return str(folder)
