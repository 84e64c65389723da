"""The nodes of most YAMLs, by libyaml: as PyYAML's own parser makes them, in a tenth of the time.

The two differ at the edges: in what they accept, in where an empty value ends, in how deep they can nest (libyaml's
nodes are made by recursion in C, which ends the process). So only texts without any of that are read here, and whatever
libyaml does not take is left to the other parser, which says what is wrong with it.
"""

import re
from functools import lru_cache
from typing import Any

import yaml

# The tag of scalars without quotes and without a tag: what they are is said by their text.
PLAIN = "tag:tunemill,plain"

# So few that there cannot be more values than a config may have.
MOST_CHARACTERS = 16 * 1024
OTHERS = r"\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd"
# Lines with a comment behind what is usual, and lines without tags, aliases, complex keys, directives, block scalars,
# controls or several lists that begin at once; `[a, b]` and `{a: b}` are closed where they begin, and simple.
WORD = r"[\w./+-]+"
FLOW = rf"\[{WORD}(?:, {WORD})*\]|\{{\w+: {WORD}(?:, \w+: {WORD})*\}}"
SAFE = rf"\x20\x24\x28\x29\x2b-\x3d\x41-\x5a\x5c\x5e\x5f\x61-\x7a\x7e{OTHERS}"
USUAL = rf"(?!.*- .*- )(?:[\x22\x23\x27{SAFE}]|{FLOW})*"
COMMENT = rf"(?!.*- .*- )(?:(?:[{SAFE}]|{FLOW})* |)\#[\x20-\x7e{OTHERS}]*"
# A line is read in one way and not again: many comments and one unusual line would else take time without end.
USUAL_TEXT = re.compile(rf"(?:(?>{COMMENT}|{USUAL})\n)*+")

if yaml.__with_libyaml__:

    class _Loader(yaml.CSafeLoader):
        """Composes nodes; gives scalars no type."""

        def resolve(self, kind: type[yaml.Node], value: str, implicit: Any) -> str:  # noqa: ARG002  PyYAML's signature
            if kind is yaml.ScalarNode:
                return PLAIN if implicit[0] else str(self.DEFAULT_SCALAR_TAG)
            return str(self.DEFAULT_MAPPING_TAG if kind is yaml.MappingNode else self.DEFAULT_SEQUENCE_TAG)


@lru_cache(maxsize=1024)
def usual_nodes(text: str) -> tuple[yaml.Node, ...] | None:
    """The nodes of a text's documents, which nobody may change; None where the other parser must be asked.

    Whoever loads a folder asks twice, first whether a file is a pipeline at all.
    """
    if not (yaml.__with_libyaml__ and len(text) <= MOST_CHARACTERS and USUAL_TEXT.fullmatch(text)):
        return None
    loader = _Loader(text)
    found: list[yaml.Node] = []
    try:
        while loader.check_node():
            if (node := loader.get_node()) is not None:
                found.append(node)
    except yaml.YAMLError:
        return None
    return tuple(found)
