"""Weights that FSDP stored in parts (PyTorch's distributed checkpoints), as one safetensors file."""

import sys
from pathlib import Path

from accelerate.utils import merge_fsdp_weights
from torch.distributed.checkpoint.api import CheckpointException

from tunemill.stages.errors import SourceError
from tunemill.stages.models.weights import sort_header


def join(source: Path, target: Path) -> Path:
    """Write `model.safetensors` below `target`, with the names and types that are stored. Raises SourceError."""
    target.mkdir(parents=True, exist_ok=True)
    try:
        merge_fsdp_weights(str(source), str(target))
    except (
        CheckpointException,
        EOFError,
        OSError,
        KeyError,
        RuntimeError,
        ValueError,
        AttributeError,
    ) as error:
        # That of checkpoints is a list of tracebacks, which ends with the fault.
        said = (str(error).splitlines() or [type(error).__name__])[-1]
        raise SourceError(
            f"{source}: its parts cannot be put together ({said}). Copy or save it again."
        ) from None
    path = target / "model.safetensors"
    sort_header(path)
    return path


def main() -> int:
    """For a process of its own: where from, where to. A fault is its last line."""
    try:
        print(join(Path(sys.argv[1]), Path(sys.argv[2])))
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
