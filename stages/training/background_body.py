"""Checkpoints in parts that are written while the training goes on (torch.distributed.checkpoint.async_save).

What a checkpoint holds is copied into main memory, for which the training waits; then threads write the copy. It is
sealed when all of it is there. No two are written at once: the next one waits.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from torch import distributed
from torch.distributed.checkpoint import CheckpointException, async_save
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

from tunemill.stages.models.sharded_weights import PARTS
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.parts_body import OPTIMIZER


class Background:
    """What of checkpoints is being written. All processes call its functions at the same steps."""

    def __init__(self, seconds: int | None) -> None:
        wait = timedelta(seconds=seconds or ranks.SECONDS)
        # Processes that write ask each other as they go, apart from what they ask in training: through main memory,
        # and weights and the optimizer's state, which are written at once, each in a group of its own.
        self._groups = {
            name: distributed.new_group(backend="gloo", timeout=wait) for name in (PARTS, OPTIMIZER)
        }
        self._sealing = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._writes: list[Future[Any]] = []
        self._whole: tuple[Future[None], Path, Callable[[], None]] | None = None

    def write(self, checkpoint: Path, model: Any, optimizer: Any) -> None:
        """Begin to write what this process has of the weights, or the adapter's, and of the optimizer's state."""
        assert not self._writes, "the one before is not whole"
        weights = (
            get_peft_model_state_dict(model) if isinstance(model, PeftModel) else get_model_state_dict(model)
        )
        states = {
            PARTS: {"model": weights},
            OPTIMIZER: {"optimizer": get_optimizer_state_dict(model, optimizer)},
        }
        for name, state in states.items():
            begun = async_save(state, checkpoint_id=checkpoint / name, process_group=self._groups[name])
            assert isinstance(begun, Future), "what is copied while training goes on would be of two steps"
            self._writes.append(begun)

    def seal(self, checkpoint: Path, seal: Callable[[], None], told: Callable[[], None]) -> None:
        """Call `seal` in a thread once all processes have written; `told` in this one, when it is next looked at."""
        writes, self._writes = self._writes, []
        self._whole = self._sealing.submit(_after, writes, seal), checkpoint, told

    def look(self, *, waits: bool) -> None:
        """Tell of a checkpoint that is whole; where it `waits`, it will be.

        Raises OSError for a disk that is full, RuntimeError for another reason why one could not be written.
        """
        if self._whole is None or not (waits or self._whole[0].done()):
            return
        (future, checkpoint, told), self._whole = self._whole, None
        error = future.exception()
        if error is not None:
            raise _cause(error, checkpoint) from error
        told()


def _after(writes: list[Future[Any]], seal: Callable[[], None]) -> None:
    # All end before one of them is told of: what failed in one process has failed in all.
    for error in [write.exception() for write in writes]:
        if error is not None:
            raise error
    seal()


def _cause(error: BaseException, checkpoint: Path) -> Exception:
    """What kept a process from writing: an error of the disk as it is."""
    which = ""
    if isinstance(error, CheckpointException) and error.failures:
        rank, (error, _) = min(error.failures.items(), key=lambda failure: failure[0])
        which = f" in process {rank}"
    seen: BaseException | None = error
    while seen is not None and not (isinstance(seen, OSError) and seen.errno is not None):
        seen = seen.__cause__ or seen.__context__
    if isinstance(seen, OSError):
        return seen
    return RuntimeError(f"{checkpoint} could not be written{which}: {type(error).__name__}: {error}")


def background_of(config: TrainingKeys) -> Background | None:
    """What writes checkpoints beside the training; None where the training waits for them."""
    asked = config.asynchronous_checkpoints is not False and config.sharding.fsdp is not None
    return Background(config.ddp_timeout) if asked else None
