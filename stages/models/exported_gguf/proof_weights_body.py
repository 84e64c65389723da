"""Proof of the weights: what the file holds, read back and turned back, beside the model, tensor by tensor.

How far a number may be off follows from its type: half a step of the block that it is in, with what rounding the
block's scale to 16 bits adds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from tunemill.stages.errors import UserError
from tunemill.stages.models.gguf_loading_body import ROTATIONS, WITH_ONE, apart, pairs_of, source_name
from tunemill.stages.models.gguf_reading_body import GgufFile
from tunemill.stages.models.weights import StoredTensor, tensors_of_model

# Of types with a k: the root of the mean square by which they may be off, as a share of that of the numbers.
SHARES = {"Q2_K": 0.5, "Q3_K": 0.3, "Q4_K": 0.15, "Q5_K": 0.08, "Q6_K": 0.04}
# llama-quantize chooses scales by how much each number weighs: one of them may be farther off.
BY_WEIGHT = 2.0
# So many numbers are compared at once: a multiple of every block.
AT_ONCE = 1 << 22
BLOCK, ROUNDED = 32, 2.0**-10
# Bits of a number of a matrix, its share of the block's scale with it.
BITS = {
    "f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q5_1": 6.0, "q5_0": 5.5, "q4_1": 5.0, "q4_0": 4.5,
    "mxfp4": 4.25,
}  # fmt: skip
# The smallest step of a scale in 16 bits.
TINY = 2.0**-24


@dataclass(frozen=True)
class WeightProof:
    """How many tensors were compared, and the largest share of what is allowed that one of them used."""

    tensors: int
    used: float


def check_weights(folder: Path, file: GgufFile, kind: str) -> WeightProof:
    """Raises UserError where the file does not hold the weights of the model in `folder`."""
    family = str(file.says["general.architecture"])
    source = tensors_of_model(folder)
    named = {name: source_name(name, family) for name in file.tensors if name not in ROTATIONS}
    _check_names(named, source, file)
    used = 0.0
    room = 1.0 if kind in BITS else BY_WEIGHT
    for name, origin in named.items():
        used = max(used, _check_tensor(name, source[origin], file, room))
    return WeightProof(len(named), used)


def check_types(file: GgufFile, kind: str) -> None:
    """Raises UserError where the file is not stored in the type that was asked for, going by its bytes and by that of
    its matrices.
    """
    matrices = [name for name in file.tensors if len(file.shape(name)) == 2]
    alike = [name for name in matrices if kind not in BITS or file.kind(name) == kind.upper()]
    if not alike:
        width = file.shape(matrices[0])[1]
        raise UserError(
            f"exported gguf: no matrix of the model can be stored in {kind}: {BLOCK} inputs share a scale, and the "
            f"rows are {width} wide. Use type: bf16, or f16."
        )
    if kind not in BITS:
        return
    head = "output.weight" if "output.weight" in file.tensors else "token_embd.weight"
    size = 0
    for name in file.tensors:
        shape = file.shape(name)
        count = int(np.prod(shape))
        bits = BITS["q8_0"] if name == head and BITS[kind] < BITS["q8_0"] else BITS[kind]
        bits = 16.0 if len(shape) == 2 and bits < 16 and shape[1] % BLOCK else bits
        size += int(count * (bits if len(shape) == 2 else 32) / 8)
    there = sum(int(tensor.n_bytes) for tensor in file.tensors.values())
    if there != size:
        raise _wrong(
            file.path.name,
            f"{there} bytes of weights, where {kind} takes {size} of {len(file.tensors)} tensors",
        )


def _check_names(named: Mapping[str, str], source: Mapping[str, StoredTensor], file: GgufFile) -> None:
    there = set(named.values())
    missing = sorted(source.keys() - there)
    if missing == ["lm_head.weight"] and _equal_heads(source):
        missing = []
    if "lm_head.weight" in missing:
        raise _wrong(
            "output.weight",
            "it is not there, and the model's output head is not its embeddings: the head is lost",
        )
    if missing:
        raise _wrong(file.path.name, f"it holds nothing of {', '.join(missing[:3])}")
    if extra := sorted(there - source.keys()):
        raise _wrong(file.path.name, f"it holds {', '.join(extra[:3])}, which the model has not")


def _equal_heads(source: Mapping[str, StoredTensor]) -> bool:
    """Whether an output head that is stored beside the embeddings is the same."""
    return bool(
        np.array_equal(_stored(source["lm_head.weight"]), _stored(source["model.embed_tokens.weight"]))
    )


def _stored(tensor: StoredTensor) -> Any:
    """float32, by the library of the format."""
    with safe_open(tensor.file, framework="pt") as opened:
        return opened.get_tensor(tensor.name).float().numpy()


def _check_tensor(name: str, origin: StoredTensor, file: GgufFile, room: float) -> float:
    """The largest share of what is allowed, times `room`, that the tensor uses."""
    family = str(file.says["general.architecture"])
    wanted = _stored(origin)
    if file.shape(name) != wanted.shape:
        raise _wrong(name, f"its shape is {file.shape(name)}, and {wanted.shape} in the model")
    found = file.numbers(name)
    pairs = pairs_of(name, file, family)
    there = found if pairs is None else apart(found, pairs)
    if family in WITH_ONE and name.endswith("norm.weight"):
        # What is added rounds the weight.
        wanted = wanted + np.float32(1)
    used, place = _used(there, wanted, file.kind(name))
    used /= room
    if used <= 1.0:
        return used
    if pairs is not None and _used(found, wanted, file.kind(name))[0] <= 1.0:
        raise _wrong(
            name, "its rows stand as transformers has them, and llama.cpp turns those that stand in pairs"
        )
    row = place // wanted.shape[-1]
    if wanted.ndim == 2:
        other = int(np.abs(wanted - there[row]).sum(1).argmin())
        if other != row and _used(there[row], wanted[other], file.kind(name))[0] <= 1.0:
            raise _wrong(name, f"its row {row} is row {other} of the model: the rows stand in another order")
    what = (
        f"{float(there.reshape(-1)[place]):g} in row {row}, and {float(wanted.reshape(-1)[place]):g} in the model: "
        f"{used:.3g} times as far off as {file.kind(name)} may be"
    )
    raise _wrong(name, what)


def _used(there: Any, wanted: Any, kind: str) -> tuple[float, int]:
    """The largest share of what is allowed, and where; what is no number is beyond all that is."""
    flat, other = there.reshape(-1), wanted.reshape(-1)
    worst, place = 0.0, 0
    for start in range(0, len(flat), AT_ONCE):
        shares = _shares(
            flat[start : start + AT_ONCE], other[start : start + AT_ONCE].astype(np.float64), kind
        )
        at = int(shares.argmax())
        if not shares[at] <= worst:
            worst, place = float(shares[at]), start + at
    return worst, place


def _shares(there: Any, wanted: Any, kind: str) -> Any:
    """[N] how much of what is allowed each number uses; of types with a k each block as a whole."""
    off = np.abs(there - wanted)
    if kind not in SHARES:
        return off / allowed(wanted, kind)
    size = np.sqrt((wanted.reshape(-1, 256) ** 2).mean(1))
    return np.repeat(np.sqrt((off.reshape(-1, 256) ** 2).mean(1)) / (SHARES[kind] * size + TINY), 256)


def allowed(wanted: Any, kind: str) -> Any:
    """[N] how far each of [N] numbers may be off in a type. Raises UserError for a type without a bound."""
    size = np.abs(wanted)
    if kind == "F32":
        return 2.0**-22 * size + 1e-30
    if kind in ("F16", "BF16"):
        return size * (2.0**-11 if kind == "F16" else 2.0**-8) + 2.0**-25
    blocks = wanted.reshape(-1, BLOCK)
    largest = np.abs(blocks).max(1)
    span = blocks.max(1) - blocks.min(1)
    steps = {
        "Q8_0": largest * (0.5 / 127 + ROUNDED) + 127 * TINY,
        "Q5_0": largest * (1 / 16 + ROUNDED) + 16 * TINY,
        "Q4_0": largest * (1 / 8 + ROUNDED) + 8 * TINY,
        # What lies beyond its largest value, 113 of 127: llama-quantize's, where rows are no multiple of 256.
        "IQ4_NL": largest * (1 / 8 + ROUNDED) + 8 * TINY,
        "Q5_1": span * (0.5 / 31 + ROUNDED) + largest * ROUNDED + 32 * TINY,
        "Q4_1": span * (0.5 / 15 + ROUNDED) + largest * ROUNDED + 16 * TINY,
        # The step between 4 and 6, and what lies beyond 6.
        "MXFP4": largest * (1 / 4 + ROUNDED) + TINY,
    }
    if kind not in steps:
        raise UserError(
            f"exported gguf: llama-quantize has stored weights as {kind}, and how far they may be off is not known. "
            f"Use type: q8_0, or q4_0."
        )
    return np.repeat(steps[kind], BLOCK)


def _wrong(name: str, what: str) -> UserError:
    return UserError(
        f"exported gguf: {name}: {what}. The file is not the model; export it again, and report this if it stays."
    )
