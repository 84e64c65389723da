"""Which chat template a config chooses. A named one is the file of that name in `templates/`."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from tunemill.stages.choices import ChoiceError
from tunemill.stages.declaration import ConflictError
from tunemill.stages.errors import SettingError
from tunemill.stages.text_files import without_mark

TEMPLATES = Path(__file__).parent / "templates"
# Models that share a template.
SAME_AS = {"aya": "cohere", "gemma4_unified": "gemma4"}
NAMES = tuple(sorted({*SAME_AS, *(path.stem for path in TEMPLATES.glob("*.jinja"))}))
FALLBACK = "tokenizer_default_fallback_"
CHOICES = ("tokenizer_default", "jinja", *NAMES, *(FALLBACK + name for name in NAMES))
# Templates are put together from parts: a tokenizer carries its template as one text.
INCLUDE = re.compile(r"\{% include '([\w/]+\.jinja)' %\}\n")


def known_choice(choice: str) -> str:
    """Raises ChoiceError for a choice that there is not."""
    if choice not in CHOICES:
        raise ChoiceError(choice, CHOICES)
    return choice


TemplateName = Annotated[
    str, AfterValidator(known_choice), WithJsonSchema({"type": "string", "enum": list(CHOICES)})
]


@cache
def template_text(name: str) -> str:
    """The Jinja text of a named template, its parts filled in."""
    return _filled(SAME_AS.get(name, name) + ".jinja")


def _filled(file: str) -> str:
    text = (TEMPLATES / file).read_text(encoding="utf-8")
    return INCLUDE.sub(lambda part: _filled(part[1]), text)


def check_template_keys(name: str | None, jinja: str | None) -> None:
    """Raise ConflictError for `chat_template: name` beside `chat_template_jinja: jinja`.

    The path of a template's file has become the file's text already.
    """
    if name == "jinja" and jinja is None:
        raise ConflictError(
            "chat_template: jinja needs the template in chat_template_jinja: its text, or the path of a file",
            "chat_template",
            "chat_template_jinja",
        )
    if jinja is None:
        return
    if name not in (None, "jinja"):
        raise ConflictError(
            f"chat_template_jinja is only used with chat_template: jinja, not with chat_template: {name}",
            "chat_template_jinja",
            "chat_template",
        )
    if "{" not in jinja:
        raise ConflictError(
            f"chat_template_jinja: {jinja!r} is neither the text of a template nor the path of a file that is there; "
            "paths are seen from the folder of the YAML",
            "chat_template_jinja",
        )


def choose_template(name: str | None, jinja: str | None, own: str | None) -> str | None:
    """The template's text, without a byte order mark.

    `own` is the tokenizer's; with no choice at all it stays, even if there is none.

    Raises SettingError when the tokenizer's own template is asked for and it has none.
    """
    own = None if own is None else without_mark(own)
    if jinja is not None:
        return without_mark(jinja)
    if name is None:
        return own
    if name == "tokenizer_default" and own is None:
        raise SettingError(
            "chat_template: tokenizer_default asks for the tokenizer's own template, and it has none; choose a named "
            "one such as chat_template: chatml, or give one in chat_template_jinja"
        )
    if name == "tokenizer_default" or (name.startswith(FALLBACK) and own is not None):
        return own
    return template_text(name.removeprefix(FALLBACK))
