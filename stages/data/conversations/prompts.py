"""Where an answer begins: behind all that a model is given to go on from.

A model that is asked gets the messages before the answer with the opening of one, `add_generation_prompt`. What stands
behind that is what it has to write itself, such as a header of its reasoning, and is a part of its answer. What the
opening holds, such as an empty reasoning that is written for it, is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from tunemill.stages.data.conversations.boundaries import Place, common_prefix
from tunemill.stages.data.conversations.example import Message, Render

QUESTION: Message = {"role": "user", "content": "x...y"}
# Messages of these roles come from others than the model.
GIVEN = ("system", "user", "tool")


@dataclass(frozen=True)
class Prompts:
    """A template as a model is asked with it: `opened` renders messages and the opening of an answer to them.

    `opens`: there is such an opening; without one `opened` is `render`.
    """

    render: Render
    opened: Render
    opens: bool


def prompts_of(render: Render, opened: Render) -> Prompts:
    """How a model is asked. Some templates open an answer at the end of every conversation, asked for or not."""
    try:
        asked, question = opened([QUESTION], None), render([QUESTION], None)
        opens = asked != question or not render([QUESTION, QUESTION], None).startswith(question)
    except TemplateError:
        opens = False
    return Prompts(render, opened, opens)


def answer_starts(
    text: str,
    messages: list[Message],
    places: Sequence[Place | None],
    answers: Sequence[int],
    tools: list[object] | None,
    prompts: Prompts,
) -> dict[int, int]:
    """Of each message in `answers` that has a text, the character of `text` at which a model would begin it.

    Answers with the same text of the template before them begin alike if the first and the last of them do: so a long
    conversation is not rendered once for each of its answers.
    """
    ends = _ends_before(places)
    alike: dict[tuple[str, object], list[int]] = {}
    for index in answers:
        place = places[index]
        if place is not None and place.start < place.end:
            before = messages[index - 1].get("role") if index else None
            alike.setdefault((text[ends[index] : place.start], before), []).append(index)
    starts: dict[int, int] = {}
    for same in alike.values():
        found = {i: _start(text, messages, places, i, ends[i], tools, prompts) for i in {same[0], same[-1]}}
        distances = {_place(places, i).start - start for i, start in found.items()}
        if len(distances) == 1 and (distance := distances.pop()) >= 0:
            found = {i: _place(places, i).start - distance for i in same}
        else:
            rest = (i for i in same if i not in found)
            found |= {i: _start(text, messages, places, i, ends[i], tools, prompts) for i in rest}
        starts |= found
    return starts


def _place(places: Sequence[Place | None], index: int) -> Place:
    place = places[index]
    assert place is not None
    return place


def _ends_before(places: Sequence[Place | None]) -> list[int]:
    """Of each message, where the nearest text of another one before it ends."""
    ends = [0] * len(places)
    nearest = 0
    for index in sorted(
        (i for i, place in enumerate(places) if place), key=lambda i: (_place(places, i).start, i)
    ):
        place = _place(places, index)
        ends[index] = min(nearest, place.start)
        nearest = max(nearest, place.end)
    return ends


def _start(
    text: str,
    messages: list[Message],
    places: Sequence[Place | None],
    index: int,
    before: int,
    tools: list[object] | None,
    prompts: Prompts,
) -> int:
    """Where the answer `messages[index]` begins; its own first character where the template does not tell more."""
    place = _place(places, index)
    try:
        prompt = prompts.opened(messages[:index], tools)
        if text.startswith(prompt):
            return _behind(text, len(prompt), before, place, prompts)
        if not prompts.opens:
            return place.start
        closed = prompts.render(messages[:index], tools)
    except TemplateError:
        return place.start
    # The template has written the messages before it in another way since: only the opening can be looked for.
    opening = prompt[common_prefix(prompt, closed) :]
    found = text.rfind(opening, before, place.start + len(opening) - 1) if opening else -1
    return place.start if found < 0 else min(found + len(opening), place.end)


def _behind(text: str, end: int, before: int, place: Place, prompts: Prompts) -> int:
    """The end of a prompt that the text begins with. Without an opening there may be white space behind it, no more."""
    if end < before or (not prompts.opens and (end > place.start or text[end : place.start].strip())):
        return place.start
    return min(end, place.end)
