"""What a trace of a chat template is: a rendered conversation with holes for the contents of its messages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Hole:
    """Text number `text` of a conversation with these characters off its ends, one set after the other."""

    text: int
    left: tuple[str | None, ...] = ()
    right: tuple[str | None, ...] = ()

    @property
    def filling(self) -> Callable[[str], str] | None:
        """What comes out of a content; None where that is the content."""
        if not self.left and not self.right:
            return None
        return str.strip if (self.left, self.right) == ((None,), (None,)) else self._filled

    def _filled(self, content: str) -> str:
        for characters in self.left:
            content = content.lstrip(characters)
        for characters in self.right:
            content = content.rstrip(characters)
        return content


@dataclass(frozen=True)
class Guard:
    """What a content is taken not to do.

    It `holds` a text, `begins` or `ends` with it or `is` it, or it `agrees`: one of the two begins with the other.
    """

    hole: Hole
    relation: str
    text: str


Parts = tuple[str | Hole, ...]


@dataclass(frozen=True)
class Trace:
    """A rendered conversation with holes for the contents; for contents that are more than white space."""

    parts: Parts
    guards: tuple[Guard, ...]


class Thinks(NamedTuple):
    """Who says a message that has a reasoning too."""

    role: str


# Who says a message: by the role alone, one that is nothing but a content.
Speaker = str | Thinks
Tracer = Callable[[Sequence[Speaker], bool], Trace | None]
