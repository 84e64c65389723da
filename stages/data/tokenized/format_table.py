"""Every format by the name that `type:` gives it, and where it is made.

A new format is one file in `formats/`, with a function from (config, kit) to a `Format`, and one line here. A format
of instructions and answers is a line in `formats/recipes.py`.
"""

from pydantic import BaseModel

from tunemill.stages.choices import nearest
from tunemill.stages.data.tokenized.formats.recipes import RECIPES
from tunemill.stages.declaration import ConflictError

PLACE = "tunemill.stages.data.tokenized.formats."
FORMATS = {
    "chat_template": f"{PLACE}chat_template:chat_template",
    "completion": f"{PLACE}completion:completion",
    "input_output": f"{PLACE}input_output:input_output",
    "llama2_chat": f"{PLACE}llama2_chat:llama2_chat",
    "pygmalion": f"{PLACE}pygmalion:pygmalion",
    "stepwise_supervised": f"{PLACE}stepwise_supervised:stepwise_supervised",
    **dict.fromkeys(RECIPES, f"{PLACE}instruct:instruct"),
}
USER_DEFINED = f"{PLACE}user_defined:user_defined"
PRETOKENIZED = f"{PLACE}pretokenized:pretokenized"
USER_CODE = f"{PLACE}user_code:user_code"
# For messages: one name for each family.
FAMILIES = sorted({name.split(":")[0].split(".")[0] for name in FORMATS})
# Their function `load` may be named: `completion.load`.
LOADABLE = {name for name in FORMATS if ":" not in name and "." not in name}
# Axolotl's names of conversations with a teacher's log-probabilities beside them.
DISTILLED = {f"axolotl.integrations.kd.chat_template{name}" for name in ("", ".load", ".load_legacy")}
REMEDIES = {
    "sharegpt": (
        "is gone; use type: chat_template with field_messages: conversations and "
        "message_property_mappings: {role: from, content: value}"
    ),
    "messages": "is not supported; use type: chat_template",
    "pretrain": "belongs under pretraining_dataset:; for datasets: use type: completion",
    "user_defined": "is written as a mapping: type: {field_instruction: ..., field_output: ..., format: ...}",
    "bradley_terry": "is for reward_model: true",
}


def maker(kind: str | BaseModel | None) -> str:
    """`module:function` of what makes the format that `type` names: a name, a mapping, nothing, or user code."""
    if kind is None:
        return PRETOKENIZED
    return FORMATS.get(kind, USER_CODE) if isinstance(kind, str) else USER_DEFINED


def plain_name(kind: str) -> str:
    """The name of a format, without the function `load` that is meant anyway."""
    if kind in DISTILLED:
        # The same conversations: what a teacher says of them is read beside them.
        return "chat_template"
    name = kind.removesuffix(".load")
    return name if name in LOADABLE else kind


def unknown(kind: str) -> ConflictError:
    """What is wrong with a name that is no format's, and what may have been meant."""
    family = kind.replace(":", ".").split(".")[0].split("_simple")[0].split("_jokes")[0]
    if family in REMEDIES:
        return ConflictError(f"type: {kind} {REMEDIES[family]}", "type")
    meant = nearest(kind, [*FORMATS, "_synthetic"])
    module = kind.rpartition(".")[0].replace(".", "/")
    own = f", and there is no {module}.py with a function of your own beside this file" if module else ""
    return ConflictError(
        f"type: {kind!r} is no known format{own}. Known are {', '.join(FAMILIES)}, a mapping of fields and "
        "format strings, and functions of your own: module.function, in a file beside this one",
        "type",
        suggestion=meant[0] if meant else None,
    )
