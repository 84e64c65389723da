"""Every preference format by the name that `type:` gives it: where it is made, and which keys it reads.

A new format is a function from (config, kit) to a reader of rows, and one line here. It makes one kind of rows:
`pair` (a prompt, a chosen and a rejected answer), `rated` (a prompt, an answer and whether it is good) or
`reward` (two whole conversations).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["pair", "rated", "reward"]

HERE = "tunemill.stages.data.preferences"
TEMPLATE_KEYS = frozenset(
    {
        "chat_template",
        "chat_template_jinja",
        "drop_system_message",
        "default_system_message",
    }
)
MESSAGE_KEYS = frozenset(
    {"message_property_mappings", "message_field_role", "message_field_content", "roles", "field_tools"}
)
ANSWER_KEYS = frozenset({"field_chosen", "field_rejected"})
SYSTEM_KEYS = frozenset({"field_system", "default_system_message"})


@dataclass(frozen=True)
class PreferenceType:
    """`maker` is `module:function`, called as `function(config, kit, *arguments)`; `keys` are those it reads."""

    maker: str
    arguments: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()


def _wordings() -> Iterator[tuple[Kind, str, PreferenceType]]:
    """The formats that are written out, not rendered: the same rows in the wording of ChatML or of Llama 3."""
    pair, rated = f"{HERE}.written:pair", f"{HERE}.written:rated"
    for wording in ("chatml", "llama3"):
        for name, prompt in (
            ("argilla", "any"),
            ("default", "any"),
            ("icr", "input"),
            ("intel", "question"),
            ("prompt_pairs", "prompt"),
            ("ultra", "prompt"),
        ):
            keys = SYSTEM_KEYS | ANSWER_KEYS | (MESSAGE_KEYS if name == "ultra" else set())
            yield "pair", f"{wording}.{name}", PreferenceType(pair, (wording, prompt), keys)
        for name, prompt in (
            ("argilla", "instruction"),
            ("intel", "question"),
            ("prompt_pairs", "prompt"),
            ("ultra", "prompt"),
        ):
            yield "rated", f"{wording}.{name}", PreferenceType(rated, (wording, prompt), SYSTEM_KEYS)
        keys = SYSTEM_KEYS | ANSWER_KEYS | MESSAGE_KEYS - {"field_tools"}
        yield "pair", f"{wording}.argilla_chat", PreferenceType(f"{pair}_chat", (wording,), keys)
        keys = SYSTEM_KEYS | MESSAGE_KEYS - {"field_tools"}
        yield "rated", f"{wording}.argilla_chat", PreferenceType(f"{rated}_chat", (wording,), keys)


def _others() -> Iterator[tuple[Kind, str, PreferenceType]]:
    rendered = f"{HERE}.rendered"
    keys = TEMPLATE_KEYS | MESSAGE_KEYS | ANSWER_KEYS | {"field_system"}
    yield (
        "pair",
        "chat_template.default",
        PreferenceType(f"{rendered}:default", (), keys | {"field_messages"}),
    )
    yield "pair", "chat_template.argilla_chat", PreferenceType(f"{rendered}:argilla_chat", (), keys)
    yield "pair", "chat_template.argilla", PreferenceType(f"{rendered}:argilla", (), keys)
    yield "pair", "zephyr.nectar", PreferenceType(f"{HERE}.written:nectar")
    yield "pair", "passthrough.default", PreferenceType(f"{HERE}.written:pair_as_it_is", (), ANSWER_KEYS)
    yield "rated", "passthrough.default", PreferenceType(f"{HERE}.written:rated_as_it_is")
    yield "pair", "user_defined.default", PreferenceType(f"{HERE}.user_defined:pair")
    yield "rated", "user_defined.default", PreferenceType(f"{HERE}.user_defined:rated")
    yield "reward", "bradley_terry.chat_template", PreferenceType(f"{rendered}:reward", (), keys)
    keys = SYSTEM_KEYS | ANSWER_KEYS
    yield "reward", "bradley_terry.llama3", PreferenceType(f"{HERE}.written:reward", ("llama3",), keys)


def _table() -> Mapping[Kind, Mapping[str, PreferenceType]]:
    table: dict[Kind, dict[str, PreferenceType]] = {"pair": {}, "rated": {}, "reward": {}}
    for kind, name, made in (*_wordings(), *_others()):
        table[kind][name] = made
    return table


TYPES = _table()
# Made by rows of the user's own function; it reads no key.
USER_CODE = PreferenceType(f"{HERE}.user_code_body:transformed")
# Names of the same format.
ALIASES = {"bradley_terry.llama3.icr": "bradley_terry.llama3"}
# Only `rl: orpo` has the formats that keep what follows the end of the answer's turn.
ORPO_ONLY = frozenset({"chat_template.argilla"})


def full_name(name: str | None) -> str:
    """The name in the table: a name without a function means the one called `default`."""
    if name is None:
        return "passthrough.default"
    return ALIASES.get(name, name) if "." in name else f"{name}.default"
