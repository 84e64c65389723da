"""Proving that the merged model is base and adapter, with the weights of one layer of each in memory.

Both sides are run by the libraries that others load them with: base and adapter by PEFT, the merged model by
transformers. They go from unit to unit in step, and of each unit three things are compared:

1. its tensors: what the adapter leaves alone must have the base's bits, and what it changes must be what PEFT makes of
   it, rounded once;
2. what it computes: the merged unit on the very inputs that the unit of base and adapter had;
3. at the end the logits, where either side has gone its own way from the tokens on.
"""

from collections.abc import Iterator
from concurrent.futures import Executor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from tunemill.stages.errors import UserError
from tunemill.stages.models.merged.expected_body import Expected, expected_weights
from tunemill.stages.models.merged.faults_body import Fault, fault_of_changed, fault_of_left, message
from tunemill.stages.models.merged.sides_body import Merged, Reference
from tunemill.stages.models.probe_body import fixed_tokens
from tunemill.stages.models.walk_body import advance
from tunemill.stages.models.weights import tensors_of_model
from tunemill.stages.models.workers_body import give_back_memory, workers

# Of each sequence. Every tensor is compared by itself, so no more are needed to see that they are put together rightly.
TOKENS = 8
# Largest difference of a logit over the largest logit, after all layers: what is left of rounding where they add it up.
TOLERANCE = {"F32": 1e-4, "BF16": 0.1, "F16": 0.02}
# What a unit computes may be off by this many times the rounding of its weights: its products follow one another.
LAYER_ROUNDINGS = 16
FLOAT32 = torch.finfo(torch.float32).eps / 2


@dataclass(frozen=True)
class Proof:
    """What was compared. Logits: largest differences of one, over fixed token sequences.

    `difference`: the merged model against base and adapter, where the base is the one that the adapter was folded
    into; `tolerance` bounds it. `change`: base against base and adapter. `from_trained`, `from_unquantized`: the merged
    model against the adapter on the quantized base, and on the base before it was quantized; None without the former.
    `layer_difference`: of the units on equal inputs, the largest root mean square of what is between them, over that of
    what the unit adds; `layer_tolerance` bounds it in that unit. `tensors`: how many were compared, and `adapted`, how
    many of them the adapter changes.
    """

    difference: float
    change: float
    tolerance: float
    layer_difference: float
    layer_tolerance: float
    tensors: int
    adapted: int
    from_trained: float | None = None
    from_unquantized: float | None = None


@dataclass
class _Found:
    """What has been seen of the units so far."""

    tensors: int = 0
    adapted: int = 0
    faults: list[Fault] = field(default_factory=list)
    layers: list[tuple[float, float, str]] = field(default_factory=list)


def prove(base: Path, quantized: Path | None, adapter: Path, merged: Path, *, onto_quantized: bool) -> Proof:
    """Compare. All is computed in float32, whatever it is stored in, and of a quantized base the weights count, not how
    they are multiplied: 8-bit modules round their inputs too, which no merged model does.

    What was folded is what is proven: onto the quantized base the merged model must be what was trained, onto the
    other one it must be that one with the adapter, and how far that is from what was trained can only be told.
    Raises UserError that says which tensor or which unit is wrong.
    """
    ids = fixed_tokens(AutoConfig.from_pretrained(base).get_text_config().vocab_size)[:, :TOKENS]
    with (
        workers() as pool,
        _in_step(base, quantized, adapter, merged, ids, onto_quantized) as (references, made),
    ):
        found = _walk(references, made, pool)
        if found.faults:
            raise UserError(message(found.faults, found.adapted, _head(made)))
        _check_layers(found)
        first, last = references[0], references[-1]
        before, expected = (walk.logits() for walk in first.walks)
        logits = made.walk.logits()
        trained, plain = (first, last) if onto_quantized else (last, first)
        stored = {tensor.dtype for tensor in tensors_of_model(merged).values()}
        largest = max(found.layers)
        return Proof(
            difference=_largest(logits, expected),
            change=_largest(expected, before),
            tolerance=max(TOLERANCE.get(dtype, TOLERANCE["F32"]) for dtype in stored)
            * float(expected.abs().max()),
            layer_difference=largest[0],
            layer_tolerance=largest[1],
            tensors=found.tensors,
            adapted=found.adapted,
            from_trained=None if quantized is None else _largest(logits, trained.walks[1].logits()),
            from_unquantized=None if quantized is None else _largest(logits, plain.walks[1].logits()),
        )


@contextmanager
def _in_step(
    base: Path, quantized: Path | None, adapter: Path, merged: Path, ids: Any, onto_quantized: bool
) -> Iterator[tuple[list[Reference], Merged]]:
    """The references, the one that the adapter was folded into first, and the merged model."""
    folders = [base] if quantized is None else [quantized, base] if onto_quantized else [base, quantized]
    references = [Reference(folder, adapter, ids) for folder in folders]
    made = Merged(merged, ids)
    walks = [*(walk for one in references for walk in one.walks), made.walk]
    try:
        yield references, made
    finally:
        for walk in walks:
            walk.close()


def _walk(references: list[Reference], made: Merged, pool: Executor) -> _Found:
    walks = [*(walk for one in references for walk in one.walks), made.walk]
    found = _Found()
    units = advance(walks)
    while units[0] is not None:
        unit = units[0]
        if units[-1] != unit:
            raise UserError(
                f"merged: {units[-1] or 'its end'} stands where base and adapter have {unit}: it has other layers."
            )
        for reference in references:
            reference.fill(unit, pool)
        made.fill(unit, references[0], pool)
        units = advance(walks)
        # What they computed with, before more is needed.
        give_back_memory()
        layer = pool.submit(_compare_outputs, unit, references[0], made)
        _compare_tensors(unit, references[0], made, found, pool)
        # A wrong tensor says more than what is computed with it.
        if wait([layer]) and not found.faults:
            found.layers.append(layer.result())
        for reference in references:
            reference.clear(unit)
        made.clear(unit)
        give_back_memory()
    return found


def _compare_tensors(unit: str, reference: Reference, made: Merged, found: _Found, pool: Executor) -> None:
    changes = expected_weights(reference.whole, unit)

    def of_change(change: Expected) -> Fault | None:
        return fault_of_changed(change, reference.tensors.get(change.name), *made.stored(change.name))

    def of_left(name: str) -> Fault | None:
        found, dtype = made.stored(name)
        return fault_of_left(name, reference.tensors[name], found.to(dtype))

    left = reference.tensors.keys() - {change.name for change in changes} - made.shared - reference.parts
    faults = [*pool.map(of_change, changes), *pool.map(of_left, sorted(left))]
    found.faults += [fault for fault in faults if fault is not None]
    found.adapted += len(changes)
    found.tensors += len(changes) + len(reference.tensors.keys() - {change.name for change in changes})


def _compare_outputs(unit: str, reference: Reference, made: Merged) -> tuple[float, float, str]:
    """Difference, tolerance and unit.

    Weights that are rounded once, each by at most half a unit in the last place, change a product of them by about as
    much of its size, since they are rounded independently; and a sum of n products in float32 by at most n 2^-24.
    """
    inputs, settings, outputs = reference.calls[unit]
    try:
        with torch.no_grad():
            computed = _first(made.model.get_submodule(unit)(*inputs, **settings))
    except RuntimeError as error:
        # Of torch, about shapes.
        raise UserError(
            f"merged: {unit} cannot take what the same unit of base and adapter takes ({str(error).splitlines()[0]}). "
            f"Its config.json is that of another model."
        ) from error
    expected = _first(outputs)
    given = inputs[0] if inputs and isinstance(inputs[0], torch.Tensor) else None
    added = expected - given if given is not None and given.shape == expected.shape else expected
    difference = _rms(computed - expected) / max(_rms(added), torch.finfo(torch.float32).tiny)
    types = [dtype for dtype in made.types.values() if dtype.is_floating_point]
    rounding = max((torch.finfo(dtype).eps / 2 for dtype in types), default=FLOAT32)
    products = max((t.shape[-1] for t in reference.tensors.values() if t.ndim > 1), default=1)
    return difference, LAYER_ROUNDINGS * (rounding + products * FLOAT32), unit


def _check_layers(found: _Found) -> None:
    for difference, tolerance, unit in found.layers:
        if not difference <= tolerance:
            raise UserError(
                f"merged: {unit} computes something else than with base and adapter: {difference:.3g} of what it adds, "
                f"and rounding its weights explains {tolerance:.3g}. The adapter cannot be folded into this base; "
                f"serve it beside the base instead."
            )


def _head(made: Merged) -> str:
    output = made.model.get_output_embeddings()
    return next((f"{name}.weight" for name, module in made.model.named_modules() if module is output), "")


def _first(outputs: Any) -> Any:
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]


def _rms(tensor: Any) -> float:
    return float(tensor.float().square().mean().sqrt())


def _largest(one: Any, other: Any) -> float:
    return float((one - other).abs().max())
