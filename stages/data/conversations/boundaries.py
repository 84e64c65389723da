"""Where each message of a conversation stands in the text that the chat template makes of it.

The conversation is rendered once as it is and once with invisible marks around its texts, and where the marks come
out tells the boundaries. A message that is more than one text (reasoning, calls of tools), or whose text does not
simply come out, is replaced by a placeholder, all such messages at once, and what differs belongs to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from tunemill.stages.data.conversations.example import Message, Render
from tunemill.stages.data.conversations.marks import Field, Marks, Reading, marks_for

# They differ in their first and in their last character, so that no text begins or ends like both.
PLACEHOLDERS = ("x...y", "y...x")
# A message has at most this many texts: its content and its reasoning.
TEXTS = 2
MOST_MESSAGES = 20_000


@dataclass(frozen=True)
class Wanted:
    """What is to be found of a message: its place, and that of the properties `texts`, content first.

    `plain`: it has a text as content, which is wanted, and nothing else that the template reads. Of a message that is
    more than that the content's place will do, where there is one, unless its place is to be `exact`.
    """

    plain: bool
    texts: tuple[str, ...] = ("content",)
    exact: bool = True


@dataclass(frozen=True)
class Place:
    """Characters `start` to `end` of a rendered conversation, which came from one message.

    `fields` are the message's own texts, by property, as far as they came out as they are. `parts`: these characters
    alone came from the message, where others' stand between.
    """

    start: int
    end: int
    fields: Mapping[str, Field]
    parts: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class _Marked:
    """The conversation with marks, and what they tell; without marks where they change what the template does."""

    messages: list[Message]
    reading: Reading
    fields: list[dict[str, Field]]


def locate(
    messages: list[Message],
    wanted: Sequence[Wanted],
    tools: list[object] | None,
    render: Render,
) -> tuple[str, list[Place | None]]:
    """The rendered text, and of each message the characters that came from it; `None` where there are none."""
    if len(messages) > MOST_MESSAGES:
        raise TemplateError(
            f"it has {len(messages)} messages, and {MOST_MESSAGES} is the most that can be told apart"
        )
    text = render(messages, tools)
    marks = marks_for(text, len(messages) * TEXTS)
    if marks is None:
        return text, [_alone(messages, index, tools, render, text) for index in range(len(messages))]
    marked = _mark(messages, wanted, tools, render, marks, text)
    places = [_marked_place(want, fields) for want, fields in zip(wanted, marked.fields, strict=True)]
    odd = [index for index, place in enumerate(places) if place is None]
    if odd:
        _replace(odd, messages, tools, render, marked, places)
    return text, places


def _marked_place(want: Wanted, fields: Mapping[str, Field]) -> Place | None:
    content = fields.get("content")
    if content is None or (want.plain and not content.certain) or (want.exact and not want.plain):
        return None
    return Place(content.start, content.end, fields)


def _mark(
    messages: list[Message],
    wanted: Sequence[Wanted],
    tools: list[object] | None,
    render: Render,
    marks: Marks,
    text: str,
) -> _Marked:
    """Try marks around all wanted texts and their white space; without the latter; around plain contents; none."""
    for outer, only_plain in ((True, False), (False, False), (False, True)):
        changed = [
            message if only_plain and not want.plain else _marked_message(message, index, want, marks, outer)
            for index, (message, want) in enumerate(zip(messages, wanted, strict=True))
        ]
        try:
            reading = marks.read(render(changed, tools))
        except TemplateError:
            continue
        if reading.text == text:
            fields = [
                _fields(reading, original, index, want, outer) if message is not original else {}
                for index, (message, original, want) in enumerate(zip(changed, messages, wanted, strict=True))
            ]
            return _Marked(changed, reading, fields)
    return _Marked(messages, Reading(marks, text, {}), [{} for _ in messages])


def _marked_message(message: Message, index: int, want: Wanted, marks: Marks, outer: bool) -> Message:
    changed = message
    for offset, name in enumerate(want.texts):
        value = message.get(name)
        if isinstance(value, str) and value and not value.isspace():
            changed = {**changed, name: marks.around(value, index * TEXTS + offset, outer)}
    return changed


def _fields(reading: Reading, message: Message, index: int, want: Wanted, outer: bool) -> dict[str, Field]:
    found = {}
    for offset, name in enumerate(want.texts):
        field = reading.field(message.get(name) or "", index * TEXTS + offset, outer)
        if field is not None:
            found[name] = field
    return found


def _replace(
    odd: list[int],
    messages: list[Message],
    tools: list[object] | None,
    render: Render,
    marked: _Marked,
    places: list[Place | None],
) -> None:
    """Fill in the places of the odd messages.

    Those that stand alone between others whose contents are marked are all replaced in one rendering. Neighbours, and
    those that the template cannot do without (an answer of a tool needs its call), are replaced one at a time.
    """
    together = dict.fromkeys(odd)
    solid = [i for i, fields in enumerate(marked.fields) if "content" in fields and i not in together]
    at_once = _rendered(marked, together, tools, render)
    for index in odd:
        neighbours = len(odd) > 1 and (index - 1 in together or index + 1 in together)
        around = None if at_once is None or neighbours else _around(index, solid, marked, at_once)
        if at_once is not None and around is not None:
            places[index] = _between(index, around, marked, at_once)
            continue
        alone = at_once if len(odd) == 1 else _rendered(marked, {index: None}, tools, render)
        if alone is None:
            places[index] = _alone(messages, index, tools, render, marked.reading.text)
            continue
        # Where the template does not keep the order of messages, all of the text is compared.
        everything = _Around(0, len(marked.reading.text), 0, len(alone.text))
        places[index] = _between(index, _around(index, solid, marked, alone) or everything, marked, alone)


def _rendered(
    marked: _Marked, replaced: Mapping[int, None], tools: list[object] | None, render: Render
) -> Reading | None:
    """The conversation with placeholders, marked as contents, for some messages; None where it is refused."""
    marks = marked.reading.marks
    changed = [
        _placeholder(message, marks.around(PLACEHOLDERS[0], index * TEXTS, outer=False))
        if index in replaced
        else message
        for index, message in enumerate(marked.messages)
    ]
    try:
        return marks.read(render(changed, tools))
    except TemplateError:
        return None


def _placeholder(message: Message, content: str) -> Message:
    role = {"role": message["role"]} if "role" in message else {}
    return {**role, "content": content}


@dataclass(frozen=True)
class _Around:
    """The text between a message's neighbours: `start` to `end` as it is, `other_start` to `other_end` replaced."""

    start: int
    end: int
    other_start: int
    other_end: int


def _around(index: int, solid: list[int], marked: _Marked, other: Reading) -> _Around | None:
    """None where the neighbours do not stand before and after the placeholder."""
    left = max((i for i in solid if i < index), default=None)
    right = min((i for i in solid if i > index), default=None)
    start = 0 if left is None else marked.fields[left]["content"].inner_end
    end = len(marked.reading.text) if right is None else marked.fields[right]["content"].inner_start
    before = (0, 0) if left is None else other.at(left * TEXTS)
    after = (len(other.text),) * 2 if right is None else other.at(right * TEXTS)
    found = other.at(index * TEXTS) or before
    if before is None or after is None or found is None:
        return None
    if not (start <= end and before[1] <= found[0] and found[1] <= after[0]):
        return None
    return _Around(start, end, before[1], after[0])


def _between(index: int, around: _Around, marked: _Marked, other: Reading) -> Place | None:
    """The place of a replaced message: what differs between its neighbours. None where it leaves no trace."""
    found = other.at(index * TEXTS)
    if found is None:
        return None
    part = marked.reading.text[around.start : around.end]
    same = common_prefix(part, other.text[around.other_start : found[0]])
    rest = part[same:]
    same_end = common_prefix(rest[::-1], other.text[found[1] : around.other_end][::-1])
    return Place(around.start + same, around.end - same_end, marked.fields[index])


def _alone(
    messages: list[Message], index: int, tools: list[object] | None, render: Render, text: str
) -> Place | None:
    """The place of a message without marks: compare with a conversation for each placeholder.

    Where later messages need this one, the conversation up to it is compared; where the template needs its other
    properties, they stay. Raises TemplateError where it refuses all of these.
    """
    bare = {"role": messages[index]["role"]} if "role" in messages[index] else {}
    upto, others = _compared(messages, index, bare, tools, render)
    found = [other for other in others if other != upto]
    if not found or others[0] == others[1]:
        return None
    start = min(common_prefix(upto, other) for other in found)
    behind = min(common_prefix(upto[start:][::-1], other[start:][::-1]) for other in found)
    end = len(upto) - behind
    if text.startswith(upto[:end]):
        return Place(start, end, {})
    # The template writes what is before it in another way since: its text may stand there as it is, once.
    own = upto[start:end]
    at = text.find(own) if own.strip() else -1
    return None if at < 0 or text.find(own, at + 1) >= 0 else Place(at, at + len(own), {})


def _compared(
    messages: list[Message], index: int, bare: Message, tools: list[object] | None, render: Render
) -> tuple[str, list[str]]:
    """A conversation that the message is in, and the same with each placeholder in its place."""
    refusal = ""
    for kept, last in ((bare, len(messages)), (bare, index + 1), (messages[index], len(messages))):
        try:
            others = [
                render([*messages[:index], {**kept, "content": item}, *messages[index + 1 : last]], tools)
                for item in PLACEHOLDERS
            ]
            return render(messages[:last], tools), others
        except TemplateError as error:
            refusal = refusal or str(error)
    raise TemplateError(
        f"where message {index + 1} begins and ends cannot be told: of another text in its place it says {refusal}"
    )


def common_prefix(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
