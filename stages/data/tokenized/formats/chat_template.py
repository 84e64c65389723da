"""`type: chat_template`: conversations, rendered by the chat template."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from jinja2 import TemplateError

from tunemill.stages.data.conversations.boundaries import Place, Wanted, locate
from tunemill.stages.data.conversations.calls import without_answers
from tunemill.stages.data.conversations.example import (
    BadRowError,
    Conversation,
    Example,
    Format,
    Kit,
    Part,
    Ranges,
    RowValue,
    Turn,
)
from tunemill.stages.data.conversations.messages import TurnSource, message_reader
from tunemill.stages.data.conversations.plain_rows import plain_reader
from tunemill.stages.data.conversations.prompts import GIVEN, answer_starts, prompts_of
from tunemill.stages.data.conversations.skeletons import Skeletons
from tunemill.stages.data.conversations.unwritten import FIELDS, finder
from tunemill.stages.data.engines.encoded import CHECKED_EVERY, DifferentError
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.formats.ends import ends_of, single_id
from tunemill.stages.data.tokenized.formats.mistral_chat import mistral_chat
from tunemill.stages.errors import SettingError


def chat_template(config: TokenizedConfig, kit: Kit) -> Format:
    """Raises SettingError when there is no template, or when end tokens do not fit the tokenizer."""
    if kit.render_tokens is not None:
        return mistral_chat(config, kit)
    if kit.template is None:
        raise SettingError(
            "type: chat_template needs a chat template and the tokenizer has none; set chat_template: chatml, "
            "or give one in chat_template_jinja"
        )
    reader = message_reader(config, kit.template)
    name = config.chat_template or config.template_name
    called = f"the chat template {name}" if name else "the chat template"
    texts = ("content", config.template_thinking_key)
    ends = ends_of(config, kit, single_id)
    endings = {*([kit.eos_token] if kit.eos_token else []), *(config.eot_tokens or [])}
    prompts = prompts_of(kit.render, kit.render_opened)
    unwritten = finder({*FIELDS, config.template_thinking_key}, kit.render)
    every = "all" in (ends.train_on_eos, ends.train_on_eot)

    def wanted(source: TurnSource) -> Wanted:
        if source.plain:
            return Wanted(plain=True)
        names = texts if source.details else texts[:1]
        return Wanted(plain=False, texts=names, exact=every or source.trained)

    def conversation(sources: Sequence[TurnSource], tools: list[Any] | None) -> Conversation:
        values = [source.value for source in sources]
        try:
            wants = [wanted(source) for source in sources]
            text, places = locate(values, wants, tools, kit.render)
            places = without_answers(text, values, wants, places, tools, kit.render, endings)
        except TemplateError as error:
            raise BadRowError(f"{called} refuses the row: {error}") from None
        answers = [index for index, source in enumerate(sources) if is_answer(source)]
        starts = answer_starts(text, values, places, answers, tools, prompts)
        turns = tuple(
            turn(source, place, starts.get(index, place.start), text)
            for index, (source, place) in enumerate(zip(sources, places, strict=True))
            if place is not None
        )
        left_out = sum(
            place is None and has_text(source) for source, place in zip(sources, places, strict=True)
        )
        lost = [name for source in sources for name in source.unread]
        not_shown, without_tools = unwritten(values, tools)
        lost += [reader.mappings.get(name, name) for name in not_shown]
        return Conversation(text, turns, left_out, tuple(sorted(lost)), without_tools)

    def read(row: RowValue) -> Example:
        return conversation(reader.turns(row), reader.tools(row))

    if kit.trace is None:
        return Format(read, ends=ends)
    plain = plain_reader(reader)
    skeletons = Skeletons(
        kit.trace, lambda roles, texts: conversation(reader.plain_turns(roles, texts), None), prompts.opens
    )

    def put_together(row: RowValue) -> Conversation | None:
        found = plain(row)
        return None if found is None else skeletons.conversation(*found)

    return Format(checked(put_together, read), ends=ends)


def checked(
    fast: Callable[[RowValue], Example | None], slow: Callable[[RowValue], Example]
) -> Callable[[RowValue], Example]:
    """The fast way where it makes something of a row, compared now and then; the slow way for all others.

    What it returns raises DifferentError where they do not make the same.
    """
    numbers = count()

    def read(row: RowValue) -> Example:
        made = fast(row)
        if made is None:
            return slow(row)
        if next(numbers) % CHECKED_EVERY == 0 and made != _read_or_none(slow, row):
            raise DifferentError(
                "the chat template makes something else of a row than of others with its roles"
            )
        return made

    return read


def _read_or_none(read: Callable[[RowValue], Example], row: RowValue) -> Example | None:
    try:
        return read(row)
    except BadRowError:
        return None


def is_answer(source: TurnSource) -> bool:
    """Whether it is trained on as a whole, and a model says it when it is asked."""
    return source.trained and not source.details and source.role not in GIVEN


def has_text(source: TurnSource) -> bool:
    """Whether the message says anything."""
    content = source.value.get("content")
    return isinstance(content, str) and bool(content.strip())


def turn(source: TurnSource, place: Place, start: int, text: str) -> Turn:
    """The message at its place in the text, from `start` on."""
    details = (ranges(source, place, text, name, parts) for name, parts in source.details.items())
    found = tuple(item for item in details if item is not None)
    if place.parts and source.trained and not source.details:
        own = tuple(Part(max(begin, start), end, True) for begin, end in place.parts)
        found = (Ranges(start, place.end, own),)
    return Turn(source.role, start, place.end, source.trained, found)


def ranges(source: TurnSource, place: Place, text: str, name: str, parts: tuple[Part, ...]) -> Ranges | None:
    """The ranges of one property, in characters of the rendered text; None where it does not come out."""
    field = place.fields.get(name)
    if field is not None:
        start, end, origin = field.start, field.end, field.origin
    else:
        given = source.value.get(name) or ""
        inner = given.strip()
        start = text.find(inner, place.start, place.end) if inner else -1
        end = start + len(inner)
        origin = start - given.find(inner)
    if start < 0:
        return None
    moved = (Part(part.start + origin, part.end + origin, part.trained) for part in parts)
    return Ranges(start, end, tuple(moved))
