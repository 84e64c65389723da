"""`type: chat_template`: conversations, rendered by the chat template."""

from jinja2 import TemplateError

from tunemill.stages.data.conversations.boundaries import Place, Wanted, locate
from tunemill.stages.data.conversations.example import (
    BadRowError,
    Conversation,
    Ends,
    Example,
    Format,
    Kit,
    Part,
    Ranges,
    RowValue,
    Turn,
)
from tunemill.stages.data.conversations.messages import TurnSource, message_reader
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.errors import SettingError


def chat_template(config: TokenizedConfig, kit: Kit) -> Format:
    """Raises SettingError when there is no template, or when end tokens do not fit the tokenizer."""
    if kit.template is None:
        raise SettingError(
            "type: chat_template needs a chat template and the tokenizer has none; set chat_template: chatml, "
            "or give one in chat_template_jinja"
        )
    reader = message_reader(config, kit.template)
    name = config.chat_template or config.template_name
    called = f"the chat template {name}" if name else "the chat template"
    texts = ("content", config.template_thinking_key)
    ends = ends_of(config, kit)
    every = "all" in (ends.train_on_eos, ends.train_on_eot)

    def wanted(source: TurnSource) -> Wanted:
        if source.plain:
            return Wanted(plain=True)
        names = texts if source.details else texts[:1]
        return Wanted(plain=False, texts=names, exact=every or source.trained)

    def read(row: RowValue) -> Example:
        sources = reader.turns(row)
        values = [source.value for source in sources]
        try:
            text, places = locate(
                values, [wanted(source) for source in sources], reader.tools(row), kit.render
            )
        except TemplateError as error:
            raise BadRowError(f"{called} refuses the row: {error}") from None
        found = list(zip(sources, places, strict=True))
        turns = tuple(turn(source, place, text) for source, place in found if place is not None)
        return Conversation(text, turns, sum(place is None and has_text(source) for source, place in found))

    return Format(read, ends=ends)


def has_text(source: TurnSource) -> bool:
    """Whether the message says anything."""
    content = source.value.get("content")
    return isinstance(content, str) and bool(content.strip())


def turn(source: TurnSource, place: Place, text: str) -> Turn:
    """The message at its place in the text."""
    details = (ranges(source, place, text, name, parts) for name, parts in source.details.items())
    found = tuple(item for item in details if item is not None)
    return Turn(source.role, place.start, place.end, source.trained, found)


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


def ends_of(config: TokenizedConfig, kit: Kit) -> Ends:
    """Which tokens end a turn, and when they are trained. Raises SettingError for rules that contradict."""
    eos = [] if kit.eos_token is None else [kit.eos_token]
    eot = eos if config.eot_tokens is None else config.eot_tokens
    train_on_eot = config.train_on_eot or config.train_on_eos
    # Where EOS is the only end of turn, what either key trains is trained.
    if set(eos) & set(eot) and set(eos) != set(eot) and train_on_eot != config.train_on_eos:
        raise SettingError(
            f"train_on_eos: {config.train_on_eos} and train_on_eot: {train_on_eot} contradict each other: "
            f"{eos[0]} is both the EOS token and one of eot_tokens"
        )
    return Ends(
        eos_ids=frozenset(single_id(token, kit) for token in eos),
        train_on_eos=config.train_on_eos,
        eot_ids=frozenset(single_id(token, kit) for token in eot),
        train_on_eot=train_on_eot,
    )


def single_id(token: str, kit: Kit) -> int:
    """The id of a token of `eot_tokens`. Raises SettingError where it is not one token."""
    ids = kit.ids_of(token)
    if len(ids) != 1:
        raise SettingError(
            f"eot_tokens: {token!r} is {len(ids)} tokens to this tokenizer and must be one; add it under tokens:"
        )
    return ids[0]
