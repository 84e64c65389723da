"""Where an answer that calls tools ends, where the template lets what the tools say change that.

Some templates write what the tools said into the turn that called them, before its content, and some count calls
throughout the conversation. There all that differs without the calls is more than what the model wrote.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from jinja2 import TemplateError

from tunemill.stages.data.conversations.boundaries import Place, Wanted, locate
from tunemill.stages.data.conversations.example import Message, Render

CALLS, TOOL = "tool_calls", "tool"


def without_answers(
    text: str,
    messages: list[Message],
    wanted: Sequence[Wanted],
    places: list[Place | None],
    tools: list[object] | None,
    render: Render,
    endings: Collection[str],
) -> list[Place | None]:
    """The places, those of calls without what tools said.

    A place that one of `endings` stands behind and none in is right as it is. Others are compared with a conversation
    in which no tool says anything.
    """
    doubted = [
        index
        for index, place in enumerate(places)
        if place and _doubted(text, messages, index, place, endings)
    ]
    doubted = [index for index in doubted if not wanted[index].plain and wanted[index].exact]
    if not doubted:
        return places
    kept = [index for index, message in enumerate(messages) if message.get("role") != TOOL]
    try:
        silent, found = locate([messages[i] for i in kept], [wanted[i] for i in kept], tools, render)
    except TemplateError:
        return places
    alone = dict(zip(kept, found, strict=True))
    mended = list(places)
    for index in doubted:
        mended[index] = _mended(text, places[index], silent, alone[index])
    return mended


def _doubted(text: str, messages: list[Message], index: int, place: Place, endings: Collection[str]) -> bool:
    """Whether a place of calls, which a tool answers, may hold more than the calls."""
    if not messages[index].get(CALLS) or messages[index + 1 : index + 2] == []:
        return False
    if messages[index + 1].get("role") != TOOL:
        return False
    behind = text[place.end : place.end + 200].lstrip()
    ends = any(behind.startswith(ending) for ending in endings)
    return not ends or any(text.find(ending, place.start, place.end) >= 0 for ending in endings)


def _mended(text: str, place: Place | None, silent: str, alone: Place | None) -> Place | None:
    """The place with the text that it has where no tool says anything; as it is where the text is another one."""
    if place is None or alone is None:
        return place
    own = silent[alone.start : alone.end]
    if text.startswith(own, place.start):
        return replace(place, end=place.start + len(own))
    before, after = alone.fields.get("content"), place.fields.get("content")
    if before is None or after is None:
        return place
    # The content stands behind what the tools said.
    calls = silent[alone.start : before.start] + silent[before.end : alone.end]
    end = place.start + len(calls)
    if not text.startswith(calls, place.start) or end > after.start:
        return place
    return replace(place, parts=((place.start, end), (after.start, place.end)))
