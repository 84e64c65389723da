"""Overrides of keys, as they are typed: `--learning_rate=1e-4`, `--learning_rate 1e-4`, `learning_rate=1e-4`."""

import re
from dataclasses import dataclass

from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.spans import Span

# The key ends at `=`, or at the blank that the command line puts between `--key` and its value.
TYPED = re.compile(r"(?P<dashes>--)?(?P<key>[^=\s]*)[=\s](?P<value>.*)", re.DOTALL)
# `a.b[0].c` as a, b, 0, c; no list has more items than seven digits count.
PARTS = re.compile(r"([^.\[\]]+)|\[([0-9]{1,7})\]")


@dataclass(frozen=True)
class Override:
    """`text` as it was typed; `parts` lead to the key that it sets; the value is YAML.

    `key` and `value` are the places in the text where they begin and end. `options` are those of the command, which
    may be what was meant by a key that there is not. `key_at` and `value_at` say where an override stands that nobody
    has typed: a point of a sweep sets what stands in the YAML.
    """

    text: str
    parts: KeyPath
    key: tuple[int, int]
    value: tuple[int, int]
    options: tuple[str, ...] = ()
    key_at: Span | None = None
    value_at: Span | None = None

    @property
    def value_text(self) -> str:
        return self.text[slice(*self.value)]

    @property
    def key_span(self) -> Span:
        return self.key_at or self.span(*self.key)

    def span(self, begin: int, end: int) -> Span:
        """From one place in the text to another, counted from 0."""
        if self.value_at is not None:
            return self.value_at
        return Span(1, begin + 1, end + 1, self.text, override=True)


def override_of(text: str, options: tuple[str, ...] = ()) -> Override:
    """Read an override. What is no key has no parts.

    Dashes in the key stand for underscores, as on Axolotl's command line; below it they are taken as they are.
    """
    found = TYPED.fullmatch(text)
    if found is None:
        return Override(text, (), (0, len(text)), (len(text), len(text)), options)
    parts: list[str | int] = [int(number) if number else name for name, number in PARTS.findall(found["key"])]
    if parts and isinstance(parts[0], str):
        parts[0] = parts[0].replace("-", "_")
    return Override(text, tuple(parts), found.span("key"), found.span("value"), options)
