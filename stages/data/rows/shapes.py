"""What rows look like, and the keys of a dataset's entry that read such rows. No heavy imports.

A shape is a line of SHAPES: which fields a row has, what is in each, and the keys. The first that fits is the most
likely. A test reads a row of each shape with the real format, so a new line needs nothing else.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
# The data's names of a message's role and content.
Names = tuple[str, str]
# Whether a value is of a kind.
Kind = Callable[[Any], bool]


@dataclass(frozen=True)
class Goal:
    """What rows are for: what a person calls them, and the keys at the top level that train on them."""

    rows: str
    settings: Mapping[str, Any]


GOALS = {
    "tokens": Goal("rows for fine-tuning", {}),
    "pair": Goal("pairs of a better and a worse answer", {"rl": "orpo"}),
    "rated": Goal("answers that are judged good or bad", {"rl": "kto"}),
    "reward": Goal("pairs of conversations for a reward model", {"reward_model": True}),
    "steps": Goal("answers in judged steps", {"process_reward_model": True}),
}
USUAL: Names = ("role", "content")
MESSAGE_NAMES: tuple[Names, ...] = (
    USUAL, ("from", "value"), ("role", "value"), ("role", "text"), ("from", "content"), ("from", "text"),
    ("speaker", "text"), ("speaker", "content"), ("author", "content"), ("author", "text"), ("sender", "text"),
    ("sender", "content"),
)  # fmt: skip
MESSAGE_FIELDS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
TEXT_FIELDS = ("text", "content", "document", "body", "raw_content", "passage", "article", "story", "code")
PROMPT_FIELDS = ("prompt", "instruction", "question", "query", "problem", "request", "input", "source")
ANSWER_FIELDS = ("response", "answer", "output", "completion", "solution", "reply", "target")
CONTEXT_FIELDS = ("context", "input")
PAIR_FIELDS = (("chosen", "rejected"), ("chosen_response", "rejected_response"))
# Names of roles that are no name of theirs in the templates, in small letters.
ROLE_NAMES = {
    "user": ("user", "human", "customer", "prompter", "client"),
    "assistant": ("assistant", "gpt", "bot", "chatbot", "model", "ai", "agent", "chatgpt"),
    "system": ("system",),
    "tool": ("tool", "function_response", "observation"),
}


def is_text(value: Any) -> bool:
    """Text, or a number, which is written out."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def is_string(value: Any) -> bool:
    """Text, and no number."""
    return isinstance(value, str)


def is_flag(value: Any) -> bool:
    """True or false, also as a number or a word."""
    return value in (0, 1) or (
        isinstance(value, str) and value.strip().lower() in ("true", "false", "0", "1")
    )


def are_flags(value: Any) -> bool:
    """A list of true and false, or of numbers of classes."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, int) for item in value)


def are_texts(value: Any) -> bool:
    """A list of texts."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def are_tokens(value: Any) -> bool:
    """A list of integers."""
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def are_segments(value: Any) -> bool:
    """A list of texts, each with a label that is true or false."""
    return isinstance(value, list) and bool(value) and all(
        isinstance(item, dict) and isinstance(item.get("text"), str) and isinstance(item.get("label"), bool)
        for item in value
    )  # fmt: skip


def parsed(text: str) -> list[Any] | None:
    """The list that a text is as JSON; None where it is none."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


@dataclass(frozen=True)
class Messages:
    """A list of at least so many messages, with these names of role and content; also as JSON text.

    With `also_one`, a message or a plain text will do.
    """

    names: Names
    least: int = 1
    also_one: bool = False

    def __call__(self, value: Any) -> bool:
        if self.also_one and isinstance(value, str):
            return parsed(value) is None
        if self.also_one and isinstance(value, dict):
            return self._is_message(value)
        found = value if self.also_one else self.messages(value)
        if not isinstance(found, list) or len(found) < self.least:
            return False
        return all(map(self._is_message, found)) and any(self.names[1] in item for item in found)

    def messages(self, value: Any) -> list[Any]:
        """The messages in a value, whatever these are."""
        found = parsed(value) if isinstance(value, str) else value
        return found if isinstance(found, list) else [found]

    def _is_message(self, value: Any) -> bool:
        if not isinstance(value, dict) or not isinstance(value.get(self.names[0]), str):
            return False
        return isinstance(value.get(self.names[1], ""), str | list)


@dataclass(frozen=True)
class Shape:
    """Rows that have these fields, each with something of this kind in it; `keys` read them, `goal` is of GOALS."""

    goal: str
    fields: Mapping[str, Kind]
    keys: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, row: Row) -> bool:
        """Whether a row is of this shape, whatever else it has."""
        return all(name in row and is_kind(row[name]) for name, is_kind in self.fields.items())

    def keys_for(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The keys that read these rows, which fit: with names of roles, and of a system text, where they need it."""
        keys = dict(self.keys)
        if self.goal == "pair" and any(isinstance(row.get("system"), str) for row in rows):
            keys["field_system"] = "system"
        names = renamed_roles(self.roles(rows))
        return {**keys, "roles": names} if names else keys

    def roles(self, rows: Sequence[Row]) -> list[str]:
        """The roles of all messages in rows that fit, in the order in which they occur."""
        found: dict[str, None] = {}
        for name, kind in self.fields.items():
            if isinstance(kind, Messages):
                values = [row[name] for row in rows]
                messages = [
                    item for value in values for item in (value if isinstance(value, list) else [value])
                ]
                found |= dict.fromkeys(item[kind.names[0]] for item in messages if isinstance(item, dict))
        return list(found)


def renamed_roles(given: Sequence[str]) -> dict[str, list[str]]:
    """`roles:` for these names of roles; nothing where all are known without it."""
    known = {"human", "gpt", *ROLE_NAMES}
    meant = {name: role_of(name) for name in given}
    if all(name in known or meant[name] is None for name in given):
        return {}
    used = {role: [name for name in given if meant[name] == role] for role in ROLE_NAMES}
    return {role: names for role, names in used.items() if names}


def role_of(name: str) -> str | None:
    """Whose role a name in the data means: user, assistant, system or tool; None where that is unknown."""
    plain = name.strip().lower()
    return next((role for role, names in ROLE_NAMES.items() if plain in names), None)


def _mapping(names: Names) -> dict[str, Any]:
    return {} if names == USUAL else {"message_property_mappings": dict(zip(USUAL, names, strict=True))}


def _named(key: str, name: str, default: str) -> dict[str, Any]:
    return {} if name == default else {key: name}


def _pairs() -> Iterator[Shape]:
    for better, worse in PAIR_FIELDS:
        fields = {**_named("field_chosen", better, "chosen"), **_named("field_rejected", worse, "rejected")}
        for names in MESSAGE_NAMES:
            whole, mapping = Messages(names, least=2), _mapping(names)
            yield Shape(
                "pair",
                {better: whole, worse: whole},
                {"type": "chat_template.argilla_chat", **fields, **mapping},
            )
            yield Shape(
                "reward",
                {better: whole, worse: whole},
                {"type": "bradley_terry.chat_template", **fields, **mapping},
            )
        for prompt in (*PROMPT_FIELDS, *MESSAGE_FIELDS):
            keys = {"type": "chat_template.default", **_named("field_messages", prompt, "messages"), **fields}
            yield Shape("pair", {prompt: is_text, better: is_text, worse: is_text}, keys)
            for names in MESSAGE_NAMES:
                some = Messages(names, also_one=True)
                yield Shape("pair", {prompt: some, better: some, worse: some}, {**keys, **_mapping(names)})
        reward = {"type": "bradley_terry.chat_template", **fields}
        yield Shape("reward", {"input": is_text, better: is_text, worse: is_text}, reward)


def _judged() -> Iterator[Shape]:
    yield Shape("rated", {"prompt": is_text, "completion": is_text, "label": is_flag})
    for names in MESSAGE_NAMES:
        fields: dict[str, Kind] = {"completion": Messages(names, least=2), "label": is_flag}
        yield Shape("rated", fields, {"type": "chatml.argilla_chat", **_mapping(names)})
    steps = {"prompt": is_text, "completions": are_texts, "labels": are_flags}
    yield Shape("steps", steps, {"type": "stepwise_supervised"})


def _conversations() -> Iterator[Shape]:
    for name in MESSAGE_FIELDS:
        for names in MESSAGE_NAMES:
            keys = {
                "type": "chat_template",
                **_named("field_messages", name, "messages"),
                **_mapping(names),
            }
            yield Shape("tokens", {name: Messages(names)}, keys)


def _instructions() -> Iterator[Shape]:
    for kind, *names in (
        ("reflection", "instruction", "output", "reflection", "corrected"),
        ("alpaca_w_system", "instruction", "output", "system"),
        ("alpaca", "instruction", "output"),
        ("alpaca_w_system.load_open_orca", "question", "response", "system_prompt"),
        ("context_qa", "article", "question", "answer"),
        ("context_qa.load_v2", "context", "question", "answer"),
        ("explainchoice", "question", "solution"),
        ("explainchoice", "question", "explanation"),
        ("creative_acr.load_answer", "instruction", "revision"),
        ("summarizetldr", "article", "summary"),
        ("metharme", "prompt", "generation"),
        ("oasst", "INSTRUCTION", "RESPONSE"),
        ("alpaca_chat.load_camel_ai", "message_1", "message_2"),
    ):
        fields: dict[str, Kind] = dict.fromkeys(names, is_text)
        if kind == "explainchoice":
            fields["choices"] = are_texts
        yield Shape("tokens", fields, {"type": kind})
    for prompt in PROMPT_FIELDS:
        for answer in ANSWER_FIELDS:
            plain = {"field_instruction": prompt, "field_output": answer}
            for context in CONTEXT_FIELDS:
                if context != prompt and (prompt, answer, context) != ("instruction", "response", "input"):
                    yield Shape(
                        "tokens",
                        dict.fromkeys((prompt, context, answer), is_text),
                        {"type": {**plain, **_named("field_input", context, "input")}},
                    )
            named = {("instruction", "response"): "gpteacher", ("question", "answer"): "alpaca_chat.load_qa"}
            keys = {"type": named.get((prompt, answer), plain)}
            yield Shape("tokens", {prompt: is_text, answer: is_text}, keys)


def _others() -> Iterator[Shape]:
    yield Shape("tokens", {"segments": are_segments}, {"type": "input_output"})
    yield Shape("tokens", {"input_ids": are_tokens})
    for name in TEXT_FIELDS:
        yield completion(name)


def completion(name: str) -> Shape:
    """Rows of which one field is the text to learn."""
    return Shape(
        "tokens",
        {name: is_string},
        {"type": "completion", **_named("field", name, "text")},
    )


SHAPES = (*_pairs(), *_judged(), *_conversations(), *_instructions(), *_others())
# The keys that say of which shape rows are.
SHAPE_KEYS = (
    "type", "field", "field_messages", "field_chosen", "field_rejected", "field_system", "roles",
    "message_property_mappings", "message_field_role", "message_field_content",
)  # fmt: skip


def shapes_of(rows: Sequence[Row], *, guesses: bool = True) -> list[Shape]:
    """The shapes that all of the rows have, the most likely first; none for no rows.

    With `guesses`, rows of one text in a field of any name are texts.
    """
    found = [shape for shape in SHAPES if all(map(shape.fits, rows))] if rows else []
    if found or not rows or not guesses:
        return found
    texts = [name for name, value in rows[0].items() if isinstance(value, str)]
    lone = [completion(name) for name in texts] if len(texts) == 1 else []
    return [shape for shape in lone if all(map(shape.fits, rows))]
