"""What a chat template does with the contents of messages, found by rendering contents that nobody can look into.

Such a content can be written out, joined, trimmed and asked whether it is there. What else a template asks of it is
answered as for most texts (it holds no `</think>`) and noted, so that the answer can be compared with that of a real
content; what cannot be answered so ends the trace. A trace without an end is what the template makes of every
conversation of these roles whose contents give the noted answers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from itertools import count
from typing import Any, NoReturn

from jinja2 import TemplateError, Undefined, nodes
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, Macro
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from tunemill.stages.data.conversations.template_environment import MISTAKES, ChatEnvironment, environment
from tunemill.stages.data.conversations.traces import Guard, Hole, Parts, Speaker, Trace, Tracer


class LookedAtError(Exception):
    """A template does something with a content that depends on it."""


class Content(str):
    """A text with holes, which is more than white space. Every method that would look at it ends the trace."""

    parts: Parts
    guards: list[Guard]

    def __new__(cls, parts: Parts, guards: list[Guard]) -> "Content":
        made = super().__new__(cls)
        made.parts, made.guards = parts, guards
        return made

    def __bool__(self) -> bool:
        return True

    def __add__(self, other: str) -> "Content":
        return Content(self.parts + parts_of(other), self.guards)

    def __radd__(self, other: str) -> "Content":
        return Content(parts_of(other) + self.parts, self.guards)

    def __contains__(self, text: object) -> bool:
        return self._is_not("holds", text)

    def __eq__(self, other: object) -> bool:
        return self._is_not("is", other)

    def __ne__(self, other: object) -> bool:
        return not self._is_not("is", other)

    def startswith(self, text: Any, *more: Any) -> bool:
        return self._is_not("begins", text, *more)

    def endswith(self, text: Any, *more: Any) -> bool:
        return self._is_not("ends", text, *more)

    def split(self, text: Any = None, *more: Any) -> list[str]:
        self._is_not("holds", text, *more)
        return [self]

    def replace(self, text: Any, _new: Any, *more: Any) -> "Content":
        self._is_not("holds", text, *more)
        return self

    def strip(self, characters: str | None = None) -> "Content":
        return self.lstrip(characters).rstrip(characters)

    def lstrip(self, characters: str | None = None) -> "Content":
        _checked(characters)
        parts = list(self.parts)
        while isinstance(parts[0], str) and not (rest := parts[0].lstrip(characters)):
            del parts[0]
        first = parts[0]
        parts[0] = rest if isinstance(first, str) else replace(first, left=(*first.left, characters))
        return Content(tuple(parts), self.guards)

    def rstrip(self, characters: str | None = None) -> "Content":
        _checked(characters)
        parts = list(self.parts)
        while isinstance(parts[-1], str) and not (rest := parts[-1].rstrip(characters)):
            del parts[-1]
        last = parts[-1]
        parts[-1] = rest if isinstance(last, str) else replace(last, right=(*last.right, characters))
        return Content(tuple(parts), self.guards)

    def _is_not(self, relation: str, text: object, *more: object) -> bool:
        """False, noted as an answer. Only what is one content can be asked, and by a text.

        That it is no number and not empty needs no note.
        """
        if relation == "is" and (not isinstance(text, str) or not str(text).strip()):
            return False
        (part,) = self.parts if len(self.parts) == 1 else (None,)
        if more or type(text) is not str or not text or not isinstance(part, Hole):
            raise LookedAtError(relation)
        self.guards.append(Guard(part, relation, text))
        return False


def _looks(*_: Any, **__: Any) -> NoReturn:
    raise LookedAtError


# What Python itself needs of an object.
BASIC = {
    "__class__",
    "__new__",
    "__init__",
    "__getattribute__",
    "__setattr__",
    "__delattr__",
    "__doc__",
    "__dir__",
}
BASIC |= {"__init_subclass__", "__subclasshook__", "__sizeof__", "__dict__", "__weakref__", "__module__"}
for _name in set(dir(str)) - BASIC - set(vars(Content)) | {"__hash__"}:
    setattr(Content, _name, _looks)


def _checked(characters: object) -> None:
    """White space taken off leaves a content that is more than that."""
    if characters is not None and (type(characters) is not str or characters.strip()):
        raise LookedAtError


def parts_of(text: str) -> Parts:
    """The parts of a text that may have holes."""
    return text.parts if isinstance(text, Content) else (str(text),) if text else ()


def joined(texts: Iterable[str]) -> str:
    """The texts one after the other; it is one with holes where one of them is."""
    found = list(texts)
    guards = next((text.guards for text in found if isinstance(text, Content)), None)
    if guards is None:
        return "".join(found)
    return Content(tuple(part for text in found for part in parts_of(text)), guards)


class Written:
    """What a template writes out."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __str__(self) -> str:
        return self.value if isinstance(self.value, Content) else str(self.value)


def hidden(value: Any) -> bool:
    """Whether there may be a content in a value."""
    if isinstance(value, Content):
        return True
    if isinstance(value, str | int | float | Undefined | Macro | None):
        return False
    if isinstance(value, list | tuple):
        return any(map(hidden, value))
    return any(map(hidden, value.values())) if type(value) is dict else True


# Filters that hand a content on, or count and choose messages.
PASSING = {"default", "d", "string", "trim", "length", "count", "first", "last", "list"}
PASSING |= {"reverse", "selectattr", "rejectattr", "map", "join"}
OF_MANY = {"length", "count", "first", "last", "list", "reverse"}
# What tests say of every text.
OF_TEXTS = {"defined": True, "string": True, "iterable": True, "sequence": True}
OF_TEXTS |= dict.fromkeys(("undefined", "none", "mapping", "number", "boolean", "integer", "float"), False)


def _filter(name: str, usual: Callable[..., Any]) -> Callable[..., Any]:
    """The filter for values that may hide contents."""

    @wraps(usual)
    def guarded(*values: Any, **named: Any) -> Any:
        value, *more = _own(values)
        if not hidden([value, *more, *named.values()]):
            return usual(*values, **named)
        if name not in PASSING or (name in OF_MANY and isinstance(value, str)):
            raise LookedAtError(name)
        if name == "trim" and isinstance(value, Content):
            return value.strip(*more, **named)
        if name == "join" and len(more) <= 1 and not named:
            return _between(list(value), *more)
        if name in ("trim", "join") or (name == "map" and (more or set(named) != {"attribute"})):
            raise LookedAtError(name)
        return usual(*values, **named)

    return guarded


def _test(name: str, usual: Callable[..., Any]) -> Callable[..., Any]:
    """The test for values that may hide contents."""

    @wraps(usual)
    def guarded(*values: Any, **named: Any) -> Any:
        value, *more = _own(values)
        if not hidden([value, *more, *named.values()]):
            return usual(*values, **named)
        if name == "in" and (isinstance(more[0], Content) or not isinstance(more[0], str)):
            return value in more[0]
        if name not in OF_TEXTS:
            raise LookedAtError(name)
        return OF_TEXTS[name] if isinstance(value, Content) else usual(*values, **named)

    return guarded


def _own(values: Sequence[Any]) -> list[Any]:
    """The values without the environment, which some filters and tests get first."""
    return [value for value in values if not isinstance(value, ChatEnvironment | Context | EvalContext)]


def _between(texts: Sequence[Any], between: str = "") -> str:
    if not all(isinstance(text, str) for text in texts):
        raise LookedAtError("join")
    return joined([item for text in texts for item in (between, text)][1:])


class _Memberships(NodeTransformer):
    """`x in y` as a test: Python asks a plain text whether it holds another one without a word to that one."""

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not any(item.op in ("in", "notin") for item in node.ops):
            return node
        if len(node.ops) > 1:
            raise LookedAtError("in")
        (item,) = node.ops
        test = nodes.Test(node.expr, "in", [item.expr], [], None, None).set_lineno(node.lineno)
        return test if item.op == "in" else nodes.Not(test).set_lineno(node.lineno)


class TracingEnvironment(ChatEnvironment):
    """The dialect of chat templates for contents with holes."""

    concat = staticmethod(joined)

    def call(self, context: Context, called: Any, *values: Any, **named: Any) -> Any:
        """Functions of a template's own take contents; others would look at them."""
        own = isinstance(called, Macro) or called is Namespace
        # Variables of loops and blocks come along with every call.
        given = [value for name, value in named.items() if name not in ("_loop_vars", "_block_vars")]
        if not own and hidden([*values, *given]):
            raise LookedAtError(type(called).__name__)
        return super().call(context, called, *values, **named)


def tracer(template: str, given: Mapping[str, Any], thinking: str) -> Tracer:
    """A function from those who speak, and whether an answer is to be opened, to a trace.

    A message's texts are its content and then its reasoning, which the template calls `thinking`. None where there is
    no trace: the template refuses the conversation, or looks at a text.
    """
    made = environment(TracingEnvironment)
    made.finalize = Written
    for table, guard in ((made.filters, _filter), (made.tests, _test)):
        table.update({name: guard(name, usual) for name, usual in list(table.items())})
    try:
        compiled = made.from_string(_Memberships().visit(made.parse(template)))
    except LookedAtError:
        return lambda _speakers, _opened: None

    def trace(speakers: Sequence[Speaker], opened: bool) -> Trace | None:
        guards: list[Guard] = []
        texts = (Content((Hole(number),), guards) for number in count())
        messages = [
            {"role": speaker, "content": next(texts)}
            if isinstance(speaker, str)
            else {"role": speaker.role, "content": next(texts), thinking: next(texts)}
            for speaker in speakers
        ]
        asked = {"add_generation_prompt": True} if opened else {}
        try:
            text = compiled.render({"tools": None, **given, **asked}, messages=messages)
        except (LookedAtError, TemplateError, *MISTAKES):
            return None
        return Trace(merged(parts_of(text)), tuple(dict.fromkeys(guards)))

    return trace


def merged(parts: Parts) -> Parts:
    """The parts with texts that follow each other as one."""
    found: list[str | Hole] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, str) and isinstance(last, str):
            found[-1] = last + part
        elif part:
            found.append(part)
    return tuple(found)
