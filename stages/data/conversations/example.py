"""What a format makes of a row, before tokens: texts, and which of their characters are trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunemill.stages.data.conversations.traces import Tracer

RowValue = dict[str, Any]
Message = dict[str, Any]
Render = Callable[[list[Message], list[Any] | None], str]
RenderTokens = Callable[[list[Message], list[Any] | None], "Rendered"]


class BadRowError(ValueError):
    """Why a row cannot be used; the body adds file and line."""


@dataclass(frozen=True)
class Segment:
    """A text that is tokenized by itself; a row is its segments' tokens one after the other.

    `before` are tokens put before it. `eos` is how many EOS tokens end it, one that its text ends with counted.
    `masked` is a beginning of the text that is not trained on: as many tokens as it has by itself. `last_label` is
    a class that the last token is labelled with, for classifiers of tokens; such a segment is not `trained` on its
    own tokens.
    """

    role: str
    text: str
    trained: bool
    bos: bool = False
    eos: int = 0
    last_label: int | None = None
    masked: str = ""
    before: tuple[int, ...] = ()


@dataclass(frozen=True)
class Part:
    """Characters `start` to `end` of a text and whether they are trained on."""

    start: int
    end: int
    trained: bool


@dataclass(frozen=True)
class Ranges:
    """Characters `start` to `end` of a rendered conversation, and which of them are trained on."""

    start: int
    end: int
    parts: tuple[Part, ...]


# Not frozen: one is made for every message, and a frozen one takes four times as long.
@dataclass(slots=True)
class Turn:
    """Characters `start` to `end` of a rendered conversation, which came from one message; none where it is empty.

    With `details`, only the tokens in their trained parts are trained on, not the whole turn.
    """

    role: str
    start: int
    end: int
    trained: bool
    details: tuple[Ranges, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """A rendered conversation: one text, tokenized as a whole.

    `left_out`: messages whose text is not in it. `unwritten`: fields of messages, reasonings and calls of tools, that
    are not in it, each once for each message. `without_tools`: the row has tools, which are not in it.
    """

    text: str
    turns: tuple[Turn, ...]
    left_out: int = 0
    unwritten: tuple[str, ...] = ()
    without_tools: bool = False


@dataclass(frozen=True)
class RenderedTurn:
    """All tokens of one turn of a conversation that was rendered as tokens, with those that open and end it.

    `call_id` is the call that a tool's answer belongs to.
    """

    role: str
    ids: list[int]
    call_id: str | None = None


@dataclass(frozen=True)
class Rendered:
    """A conversation rendered as tokens: those before it, and its turns. `control` are the ids that no text has."""

    start: list[int]
    turns: tuple[RenderedTurn, ...]
    control: frozenset[int]


@dataclass(frozen=True)
class TokenTurn:
    """Tokens up to `close` of a conversation of tokens, one role's; `first` to `end` of them are what it says.

    With `details`, these tokens are trained on, not all that it says.
    """

    role: str
    first: int
    end: int
    close: int
    trained: bool
    details: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TokenConversation:
    """A conversation that is tokens already; the turns stand one behind the other and reach to its end.

    `unwritten`: as of `Conversation`.
    """

    ids: list[int]
    turns: tuple[TokenTurn, ...]
    unwritten: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tokens:
    """A row that is tokens already; labels are -100 where not trained on."""

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Limited:
    """Segments of which the `following` ones are cut off after `limit` tokens together."""

    first: tuple[Segment, ...]
    following: tuple[Segment, ...]
    limit: int

    @property
    def segments(self) -> tuple[Segment, ...]:
        return (*self.first, *self.following)


Example = tuple[Segment, ...] | Limited | Conversation | TokenConversation | Tokens


@dataclass(frozen=True)
class Ends:
    """Which end-of-sequence and end-of-turn tokens are trained on: `all`, `turn`, `last` or `none`."""

    eos_ids: frozenset[int]
    train_on_eos: str
    eot_ids: frozenset[int]
    train_on_eot: str


@dataclass(frozen=True)
class Kit:
    """What a format may use of the tokenizer: its template, and the ids of a text without BOS and EOS.

    `render_opened` renders a conversation with the opening of an answer behind it. `tokenizer` is for its vocabulary,
    and gives a user's own code the one of `transformers`. `render_tokens` renders conversations in place of the
    template, where mistral-common does, and `offsets_of` tells the ids of a text and the characters of each.
    `trace` tells what the template makes of conversations whatever their texts; without it each is rendered.
    """

    template: str | None
    render: Render
    render_opened: Render
    eos_token: str | None
    ids_of: Callable[[str], list[int]]
    tokenizer: Any
    render_tokens: RenderTokens | None = None
    offsets_of: Callable[[str], tuple[list[int], list[tuple[int, int]]]] | None = None
    trace: Tracer | None = None


@dataclass(frozen=True)
class Format:
    """`read` makes an example of a row or raises BadRowError; `ends` is set where it makes conversations.

    `splits` says that a row longer than the sequence length is cut into several, not dropped; `cuts`, that only
    its beginning is kept.
    """

    read: Callable[[RowValue], Example]
    ends: Ends | None = None
    splits: bool = False
    cuts: bool = False


def text_field(row: RowValue, name: str, *, required: bool) -> str:
    """The text in a field of a row; a number is written out, and null or an absent optional field is empty."""
    value = row.get(name)
    if value is None:
        if required:
            given = "it is null" if name in row else f"the row has {sorted(row)}"
            raise BadRowError(f"no field {name!r}; {given}")
        return ""
    if isinstance(value, bool | list | dict):
        raise BadRowError(f"field {name!r} is not text but {value!r:.60}")
    return str(value)
