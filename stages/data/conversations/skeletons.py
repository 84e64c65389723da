"""Conversations put together without rendering them: what a template writes around contents is found once per shape.

A shape is the roles of a conversation whose messages are a role, a text and perhaps a reasoning. Where the template's
trace says that texts change nothing but themselves, one conversation of a shape tells where turns begin and end in all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from tunemill.stages.data.conversations.boundaries import PLACEHOLDERS, common_prefix
from tunemill.stages.data.conversations.example import BadRowError, Conversation, Turn
from tunemill.stages.data.conversations.prompts import GIVEN
from tunemill.stages.data.conversations.traces import Guard, Hole, Parts, Speaker, Thinks, Trace, Tracer

Shape = tuple[Speaker, ...]
# Longer conversations hardly share a shape, and a file has so many shapes at most that are worth it.
LONGEST, MOST = 32, 512
RELATIONS: dict[str, Callable[[str, str], bool]] = {
    "holds": str.__contains__,
    "begins": str.startswith,
    "ends": str.endswith,
    "is": str.__eq__,
    "agrees": lambda content, text: content.startswith(text) or text.startswith(content),
}


# A place in a text: so many characters behind a border. Border 0 is the beginning of the text, then each hole has one
# where it begins and one where it ends.
Spot = tuple[int, int]
# A turn: role, where it begins and where it ends, two numbers each, and whether it is trained on.
Outline = tuple[str, int, int, int, int, bool]


# The number of a text, and what makes of it what comes out, if anything does.
Filling = tuple[int, Callable[[str], str] | None]


@dataclass(frozen=True)
class Skeleton:
    """The text of a shape and its turns: `pieces` are the texts of the template, and at odd numbers the holes.

    `fillings` go into the holes. It holds for contents that do nothing of what the guards say.
    """

    pieces: list[str]
    fillings: tuple[Filling, ...]
    guards: tuple[tuple[Filling, Callable[[str, str], bool], str], ...]
    turns: tuple[Outline, ...]
    left_out: int
    unwritten: tuple[str, ...]

    def filled(self, contents: Sequence[str]) -> Conversation | None:
        """The conversation with these contents, none of which is only white space; None where a guard says no."""
        for (number, filling), relation, text in self.guards:
            content = contents[number]
            if relation(content if filling is None else filling(content), text):
                return None
        pieces = self.pieces.copy()
        pieces[1::2] = [
            contents[number] if filling is None else filling(contents[number])
            for number, filling in self.fillings
        ]
        borders = list(accumulate(map(len, pieces), initial=0))
        turns = [
            Turn(role, borders[first] + start, borders[last] + end, trained)
            for role, first, start, last, end, trained in self.turns
        ]
        return Conversation("".join(pieces), tuple(turns), self.left_out, self.unwritten)


@dataclass
class Skeletons:
    """The skeletons of one template, made as they are needed.

    `whole` makes a conversation in the usual way, and raises BadRowError; `opens` is that of `Prompts`.
    """

    trace: Tracer
    whole: Callable[[Shape, list[str]], Conversation]
    opens: bool
    known: dict[Shape, Skeleton | None] = field(default_factory=dict)

    def conversation(self, shape: Shape, texts: list[str]) -> Conversation | None:
        """The conversation of these messages; None where it has to be rendered."""
        if shape not in self.known:
            if len(shape) > LONGEST or len(self.known) >= MOST:
                return None
            self.known[shape] = self._made(shape)
        skeleton = self.known[shape]
        return None if skeleton is None else skeleton.filled(texts)

    def _made(self, shape: Shape) -> Skeleton | None:
        traced = self.trace(shape, False)
        if traced is None:
            return None
        pieces, holes = separated(traced.parts)
        texts = [f"\ue000{number}\ue001" for number in range(2 * len(shape))]
        try:
            sample = self.whole(shape, texts)
        except BadRowError:
            return None
        filled = pieces.copy()
        filled[1::2] = [texts[hole.text] for hole in holes]
        # The template itself has the last word, and a text that stands in two places has no one place.
        if "".join(filled) != sample.text or len({hole.text for hole in holes}) < len(holes):
            return None
        borders = list(accumulate(map(len, filled), initial=0))
        turns = tuple(found for turn in sample.turns if (found := outline(turn, borders)) is not None)
        more = self._prompt_guards(shape, traced.parts)
        ends = self._end_guards(shape, traced, turns)
        if more is None or ends is None or len(turns) < len(sample.turns):
            return None
        guards = tuple(
            ((guard.hole.text, guard.hole.filling), RELATIONS[guard.relation], guard.text)
            for guard in dict.fromkeys((*traced.guards, *more, *ends))
        )
        fillings = tuple((hole.text, hole.filling) for hole in holes)
        return Skeleton(pieces, fillings, guards, turns, sample.left_out, sample.unwritten)

    def _prompt_guards(self, shape: Shape, text: Parts) -> list[Guard] | None:
        """What texts must not do, so that answers begin where they do in the sample; None where that is unknown."""
        guards: list[Guard] = []
        for index, number in enumerate(numbers(shape)):
            speaker = shape[index]
            if speaker in GIVEN:
                continue
            prompt = self.trace(shape[:index], True)
            if prompt is None:
                return None
            met = meeting(prompt.parts, text)
            if met is None or (isinstance(speaker, Thinks) and not (met.whole and self.opens)):
                return None
            guards += [*prompt.guards, *met.guards]
            if met.whole or not self.opens:
                continue
            closed = self.trace(shape[:index], False)
            own = opening_guards(number, prompt.parts, text, closed.parts if closed else None)
            if own is None or closed is None:
                return None
            guards += [*closed.guards, *own]
        return guards

    def _end_guards(self, shape: Shape, traced: Trace, turns: Sequence[Outline]) -> list[Guard] | None:
        """What texts must not do, so that messages with a reasoning end with their content; None where they do not.

        Such a message is found by comparing it with one without a reasoning: the template must go on behind it alike.
        """
        guards: list[Guard] = []
        places = {part.text: place for place, part in enumerate(separated(traced.parts)[1])}
        for index, number in enumerate(numbers(shape)):
            speaker = shape[index]
            if not isinstance(speaker, Thinks):
                continue
            other = self.trace((*shape[:index], speaker.role, *shape[index + 1 :]), False)
            ended = any(
                (trained, last, end) == (True, 2 * places.get(number, -1) + 2, 0)
                for *_, last, end, trained in turns
            )
            if other is None or speaker.role in GIVEN or not ended:
                return None
            if behind(number, other.parts) != behind(number, traced.parts):
                return None
            # The other one's texts have other numbers behind that of its content, which is a placeholder.
            for guard in other.guards:
                if guard.hole.text == number and any(
                    RELATIONS[guard.relation](text, guard.text) for text in PLACEHOLDERS
                ):
                    return None
                if guard.hole.text != number:
                    moved = guard.hole.text + (guard.hole.text > number)
                    guards.append(replace(guard, hole=replace(guard.hole, text=moved)))
        return guards


def numbers(shape: Shape) -> list[int]:
    """Of each message the number of its content among the texts of the conversation."""
    return (
        list(accumulate((1 + isinstance(speaker, Thinks) for speaker in shape[:-1]), initial=0))
        if shape
        else []
    )


def behind(number: int, parts: Parts) -> str | None:
    """The template's text behind a hole; None where there is no such hole."""
    place = next((i for i, part in enumerate(parts) if isinstance(part, Hole) and part.text == number), None)
    if place is None:
        return None
    following = parts[place + 1] if place + 1 < len(parts) else ""
    return following if isinstance(following, str) else ""


@dataclass(frozen=True)
class Meeting:
    """Whether a text begins with the whole of another one, for contents that do nothing of what the guards say.

    `rest` is what follows of the one where they part.
    """

    whole: bool
    guards: tuple[Guard, ...]
    rest: Parts


def meeting(one: Parts, other: Parts) -> Meeting | None:
    """How far `other` begins with `one`; None where that depends on contents in other ways than guards can say."""
    mine, theirs = list(one), list(other)
    while mine and theirs:
        first, second = mine.pop(0), theirs.pop(0)
        if isinstance(first, Hole) and first != second:
            return None
        if isinstance(first, str) and isinstance(second, Hole):
            return Meeting(False, (Guard(second, "agrees", first),), (first, *mine))
        if isinstance(first, str) and isinstance(second, str):
            same = common_prefix(first, second)
            if same < len(first) and same < len(second):
                return Meeting(False, (), (first[same:], *mine))
            mine[:0] = [first[same:]] if first[same:] else []
            theirs[:0] = [second[same:]] if second[same:] else []
    return Meeting(not mine, (), tuple(mine))


def opening_guards(number: int, prompt: Parts, text: Parts, closed: Parts | None) -> list[Guard] | None:
    """What the content of an answer must not begin with, lest the opening of an answer be found to reach into it."""
    met = meeting(prompt, closed) if closed is not None else None
    if met is None or met.guards or any(isinstance(part, Hole) for part in met.rest):
        return None
    opening = "".join(part for part in met.rest if isinstance(part, str))
    place = next((i for i, part in enumerate(text) if isinstance(part, Hole) and part.text == number), None)
    if place is None:
        return []
    hole, before = text[place], text[place - 1] if place else ""
    assert isinstance(hole, Hole)
    gap = before if isinstance(before, str) else ""
    return [
        Guard(hole, "begins", opening[size:])
        for size in range(1, len(opening))
        if gap.endswith(opening[:size])
    ]


def separated(parts: Parts) -> tuple[list[str], tuple[Hole, ...]]:
    """Texts and holes in turn: a text, which may be empty, before and behind each hole, and nothing for a hole."""
    pieces, holes = [""], []
    for part in parts:
        if isinstance(part, str):
            pieces[-1] += part
        else:
            holes.append(part)
            pieces += ("", "")
    return pieces, tuple(holes)


def outline(turn: Turn, borders: Sequence[int]) -> Outline | None:
    """A turn by the borders before its ends; None where it begins or ends within a content, or has parts."""
    start, end = spot(turn.start, borders), spot(turn.end, borders)
    return None if start is None or end is None or turn.details else (turn.role, *start, *end, turn.trained)


def spot(position: int, borders: Sequence[int]) -> Spot | None:
    """Where a position is in a text with these borders: those where holes begin have odd numbers."""
    border = max(index for index, start in enumerate(borders) if start <= position)
    offset = position - borders[border]
    return None if border % 2 and offset else (border, offset)
