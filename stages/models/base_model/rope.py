"""`rope_scaling`, `rope_parameters` and `rope_theta` among overrides: as the one setting that transformers reads."""

from collections.abc import Mapping
from typing import Any

SPELLINGS = ("rope_parameters", "rope_scaling")
# What a scaling of another type leaves as it is.
KEPT = ("rope_theta", "partial_rotary_factor")
# These types count from the length that the model was made for.
FROM_ORIGINAL = ("llama3", "yarn", "longrope")
# Of a model with several rotations, the one that a setting without layers' names means.
FULL = "full_attention"

Parameters = dict[str, Any]


def given_rope(overrides: Mapping[str, Any]) -> tuple[str, Parameters | None]:
    """Under which name a rotation is overridden, and with what; an empty name where it is not.

    Raises ValueError for two spellings at once, or for something that is no mapping.
    """
    given = [name for name in SPELLINGS if name in overrides]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are two names of one setting. Keep one")
    if not given:
        return "", {}
    value = overrides[given[0]]
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"{given[0]}: {value!r}: give a mapping, such as {{rope_type: linear, factor: 2.0}}")
    return given[0], None if value is None else dict(value)


def with_rope(stored: Mapping[str, Any], overrides: Mapping[str, Any], original: int | None) -> Parameters:
    """The overrides with one complete `rope_parameters`; `stored` are those of the model, `original` its length.

    The model's rope_theta stays unless it is given.
    """
    name, given = given_rope(overrides)
    others = {key: value for key, value in overrides.items() if key not in (*SPELLINGS, "rope_theta")}
    theta = {"rope_theta": overrides["rope_theta"]} if "rope_theta" in overrides else {}
    if not name and not theta:
        return dict(overrides)
    change = {"rope_type": "default", **theta} if given is None else {**theta, **given}
    nested = {key for key, value in stored.items() if isinstance(value, Mapping)}
    if not nested:
        return {**others, "rope_parameters": _joined(stored, change, original)}
    if not any(isinstance(value, Mapping) for value in change.values()):
        change = dict.fromkeys([FULL] if FULL in nested else nested, change)
    changed = {key: _joined(stored.get(key, {}), part, original) for key, part in change.items()}
    return {**others, "rope_parameters": {**stored, **changed}}


def _joined(stored: Mapping[str, Any], given: Mapping[str, Any], original: int | None) -> Parameters:
    change = {key: value for key, value in given.items() if key != "type"}
    if "type" in given:
        change.setdefault("rope_type", given["type"])
    kept = {key: stored[key] for key in KEPT if key in stored} if "rope_type" in change else dict(stored)
    joined = {**kept, **change}
    joined.setdefault("rope_type", "default")
    if joined["rope_type"] in FROM_ORIGINAL and original is not None:
        joined.setdefault("original_max_position_embeddings", original)
    return joined
