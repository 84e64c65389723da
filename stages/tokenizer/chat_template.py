"""Which chat template a config chooses."""

from typing import Literal

from tunemill.stages.errors import SettingError

TemplateName = Literal["tokenizer_default", "chatml", "jinja", "tokenizer_default_fallback_chatml"]

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def check_template_keys(name: TemplateName | None, jinja: str | None) -> str | None:
    """What is wrong with `chat_template: name` beside `chat_template_jinja: jinja`, or None."""
    if name == "jinja" and jinja is None:
        return "chat_template: jinja needs the template's text in chat_template_jinja"
    if jinja is None:
        return None
    if name not in (None, "jinja"):
        return f"chat_template_jinja is only used with chat_template: jinja, not with chat_template: {name}"
    if "{" not in jinja:
        return (
            f"chat_template_jinja: {jinja!r} is not the text of a template; the path of a file is not "
            "supported yet, so put the file's text here (chat_template_jinja: | ...)"
        )
    return None


def choose_template(name: TemplateName | None, jinja: str | None, own: str | None) -> str | None:
    """The template's text. `own` is the tokenizer's; with no choice at all it stays, even if there is none.

    Raises SettingError when the tokenizer's own template is asked for and it has none.
    """
    if jinja is not None:
        return jinja
    if name == "chatml" or (name == "tokenizer_default_fallback_chatml" and own is None):
        return CHATML
    if name == "tokenizer_default" and own is None:
        raise SettingError(
            "chat_template: tokenizer_default asks for the tokenizer's own template, and it has none; "
            "choose chat_template: chatml, or give one in chat_template_jinja"
        )
    return own
