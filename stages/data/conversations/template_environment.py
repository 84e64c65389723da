"""The dialect of Jinja that chat templates are written in, as transformers defines it, and what a template reads."""

import json
from functools import cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunemill.stages.errors import SettingError

# What a template's own mistakes raise: a text added to a number, a role that is in no list.
MISTAKES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
DICT_ATTRIBUTES = frozenset(dir(dict))


class GenerationTag(Extension):
    """`{% generation %}` around what the assistant says: its body comes out as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Macro) -> Any:
        return caller()


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Jinja for chat templates. Properties of messages are found fast: they are most of what a template does."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An entry of a dictionary is no attribute, so it needs no check whether that is a safe one."""
        if type(obj) is dict and attribute not in DICT_ATTRIBUTES:
            if attribute in obj:
                return obj[attribute]
            return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def raise_exception(message: str) -> NoReturn:
    """How a template refuses a conversation."""
    raise TemplateError(message)


def environment(kind: type[ChatEnvironment] = ChatEnvironment) -> ChatEnvironment:
    """A new environment with what chat templates may use."""
    made = kind(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, LoopControlExtension])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = raise_exception
    return made


@cache
def compiled(template: str) -> Template:
    """Raises SettingError for a template that is not Jinja."""
    try:
        return environment().from_string(template)
    except TemplateSyntaxError as error:
        raise not_jinja(error) from None


def names_read(template: str) -> frozenset[str]:
    """Every attribute and every text that the template names: more than it reads of messages, never less.

    Raises SettingError for a template that is not Jinja.
    """
    try:
        tree = environment().parse(template)
    except TemplateSyntaxError as error:
        raise not_jinja(error) from None
    attributes = {node.attr for node in tree.find_all(nodes.Getattr)}
    texts = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    return frozenset(attributes | texts)


def not_jinja(error: TemplateSyntaxError) -> SettingError:
    """What is wrong with a template, and where."""
    return SettingError(f"the chat template is not Jinja: line {error.lineno}: {error.message}")
