"""The processes that train together, and what they tell each other. One that trains alone asks nobody.

Every one of them calls these functions in the same order: each waits until all have.
"""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed
from transformers import TrainerCallback

T = TypeVar("T")
# As long as Axolotl and transformers wait.
SECONDS = 1800
SEEN = "seen"


def meet(seconds: int | None) -> None:
    """Form a group with the other processes that were started with this one, if there are any.

    `seconds`: how long any of them waits for the others.
    """
    if not distributed.is_torchelastic_launched() or distributed.is_initialized():
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(distributed.get_node_local_rank())
    distributed.init_process_group(
        "nccl" if has_gpu else "gloo",
        timeout=timedelta(seconds=seconds or SECONDS),
        device_id=torch.device("cuda", torch.cuda.current_device()) if has_gpu else None,
    )


def _is_group() -> bool:
    return bool(distributed.is_available() and distributed.is_initialized())


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _is_group() else 1


def number() -> int:
    """Which of them this one is, from 0."""
    return distributed.get_rank() if _is_group() else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return number() == 0


def is_first_here() -> bool:
    """Whether this process is the first of its machine."""
    return not _is_group() or distributed.get_node_local_rank(fallback_rank=number()) == 0


def wait_for_all() -> None:
    """Go on when all have come this far."""
    if count() > 1:
        distributed.barrier()


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process does what follows before the others do."""
    if not is_first():
        wait_for_all()
    yield
    if is_first():
        wait_for_all()


def summed(values: Mapping[str, float]) -> dict[str, float]:
    """The sums over all processes, of values that all have under the same names."""
    if count() == 1 or not values:
        return dict(values)
    names = sorted(values)
    device = torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")
    numbers = torch.tensor([float(values[name]) for name in names], dtype=torch.float64, device=device)
    distributed.all_reduce(numbers)
    return dict(zip(names, numbers.tolist(), strict=True))


def agreed(value: T) -> T:
    """What the first process has found, in all."""
    if count() == 1:
        return value
    found: list[Any] = [value]
    distributed.broadcast_object_list(found, src=0)
    return found[0]  # type: ignore[no-any-return]


def shared_folder(folder: Path) -> Path | None:
    """The first process's folder, where all of them see it; None where they do not, because they share no disk."""
    first = Path(agreed(str(folder)))
    if summed({"machines": float(is_first_here())})["machines"] == 1 and _all(first == folder):
        return folder
    # Disks of two machines may have the same folders; of a new name no file system remembers that there is none.
    mark = first / f"{SEEN}_{agreed(secrets.token_hex())}"
    if is_first():
        mark.touch()
    wait_for_all()
    is_shared = _all(mark.is_file())
    if is_first():
        mark.unlink()
    return first if is_shared else None


def tidies(folder: Path) -> bool:
    """Whether this process removes what nobody needs any more: the first, and that of a machine with a disk of its own.

    `folder`: as `shared_folder` knows it.
    """
    is_shared = shared_folder(folder) is not None
    return is_first() or (is_first_here() and not is_shared)


def _all(is_so: bool) -> bool:
    """Whether it is so in every process."""
    return summed({"so": float(is_so)})["so"] == count()


def draw_anew(*numbers: int) -> None:
    """Random numbers from now on follow from these alone, whatever this process has drawn before."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))


class SameDraws(TrainerCallback):  # type: ignore[misc]
    """An optimizer that rounds at random does so alike in all processes, which would drift apart otherwise."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_pre_optimizer_step(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """What was drawn for micro batches differs."""
        draw_anew(self._seed, state.global_step)
