"""Names of Llama 4's experts as linear modules: as Axolotl's own class has them, and as transformers has them.

Transformers holds the weights of all experts of a layer in two parameters, stored (expert, in, out): gate and up side
by side in `gate_up_proj`, and `down_proj`. Where a model is stored in 4 or 8 bits it has linear modules in their place.
"""

import re
from collections.abc import Sequence

from tunemill.stages.models.module_names import leads_to

KEY = "llama4_linearized_experts"
MODEL_TYPES = ("llama4", "llama4_text")
PARTS = ("gate_proj", "up_proj", "down_proj")
# A module `experts.3.gate_proj` of transformers is `experts.gate_projs.3` of Axolotl.
MODULE = re.compile(
    rf"(?P<experts>.*\.experts)\.(?:(?P<number>\d+)\.(?P<part>{'|'.join(PARTS)})|"
    rf"(?P<part_of_axolotl>{'|'.join(PARTS)})s\.(?P<number_of_axolotl>\d+))"
)


def fault_of_type(model_type: object) -> str | None:
    """Why the key cannot be meant for a model of this type."""
    if model_type in MODEL_TYPES:
        return None
    return f"true: says how the experts of a Llama 4 are stored, and this model is of type {model_type}. Take it out"


def expert_module(name: str) -> tuple[str, str, int] | None:
    """Of a linear module of an expert, in either spelling: the module of all experts, the part, and the number."""
    found = MODULE.fullmatch(name)
    if found is None:
        return None
    part, number = found["part"] or found["part_of_axolotl"], found["number"] or found["number_of_axolotl"]
    return found["experts"], part, int(number)


def axolotls_name(name: str) -> str:
    """What Axolotl calls a module of transformers."""
    found = expert_module(name)
    return name if found is None else f"{found[0]}.{found[1]}s.{found[2]}"


def is_meant(targets: Sequence[str] | str, name: str) -> bool:
    """Whether a module's name in Axolotl is meant: by one regular expression for all of it, or by its end in a list.

    An item of a list may be a regular expression too, as Axolotl's examples have it: `experts.gate_projs.[0-9]+$`.
    """
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(leads_to(target, name) or _matches(target, name) for target in targets)


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(rf"(.*\.)?(?:{pattern})", name) is not None
    except re.error:
        return False
