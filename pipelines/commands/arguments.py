"""The arguments of a command: its own options, and overrides of keys of the YAML."""

# ruff: noqa: PTH113  a name that cannot be a path is no file

import argparse
import os
import re
from collections import deque
from collections.abc import Sequence

from tunemill.pipelines.config.overrides import Override, override_of
from tunemill.stages.choices import nearest

WITHOUT_DASHES = re.compile(r"[A-Za-z_][\w.\[\]-]*=", re.ASCII)
# Options that are asked of other commands too, where they would be taken for keys of the YAML.
OF_RUN = ("--only", "--refresh", "--on", "--on-gpus")
NUMBER = re.compile(r"-\.?[0-9]")
EPILOG = (
    "Any key of the YAML can be overridden: --learning_rate=1e-4, --learning_rate 1e-4 or learning_rate=1e-4. "
    "What lies deeper is reached by dots and numbers: datasets.0.path=rows.jsonl, or datasets[0].path=rows.jsonl. "
    "The value is read as YAML: lora_target_modules='[q_proj, v_proj]'. An option of the command comes before a key "
    "of the same name."
)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, with `overrides`, and `launcher_arguments` behind `--` where the command reads
    such. Ends the process with 2 where it makes no sense.
    """
    command = next(
        (index for index, item in enumerate(arguments) if not item.startswith("-")), len(arguments)
    )
    chosen: argparse.ArgumentParser | None = None
    if command < len(arguments):
        chosen = _chosen(parser, arguments[command])
    own: list[str] = list(arguments[command + 1 :])
    overrides: list[Override] = []
    behind: list[str] = []
    if chosen is not None and chosen.get_default("takes_launcher") and "--" in own:
        place = own.index("--")
        own, behind = own[:place], own[place + 1 :]
    if chosen is not None and chosen.get_default("takes_overrides"):
        own, overrides = split(chosen, own)
    options, extra = parser.parse_known_args([*arguments[: command + 1], *own])
    if extra:
        assert chosen is not None, "argparse refuses an unknown command"
        from tunemill.resources.redaction import redacted

        chosen.error(redacted("; ".join(_unrecognized(item, chosen) for item in extra)))
    options.overrides, options.launcher_arguments = [*overrides, *_of_a_sweep(options)], behind
    return options


def _of_a_sweep(options: argparse.Namespace) -> list[Override]:
    """`--sweep FILE` and `--point NAME` as overrides of the keys that say the same."""
    found = []
    if (file := getattr(options, "sweep", None)) is not None:
        found.append(override_of(f"pipeline.sweep={quoted(os.path.abspath(file))}"))  # noqa: PTH100
    if (point := getattr(options, "point", None)) is not None:
        found.append(override_of(f"pipeline.point={quoted(point)}"))
    return found


def quoted(text: str) -> str:
    """A text as YAML that means this text and nothing else."""
    return "'" + text.replace("'", "''") + "'"


def _chosen(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """The parser of a command. Ends the process where there is none of this name."""
    found = next(item for item in parser._actions if isinstance(item, argparse._SubParsersAction))
    commands: dict[str, argparse.ArgumentParser] = dict(found.choices)
    if name not in commands:
        near = nearest(name, list(commands))
        meant = f"; did you mean {near[0]}?" if near else "."
        parser.error(f"there is no command {name!r}{meant} There are {', '.join(commands)}")
    return commands[name]


def split(command: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[list[str], list[Override]]:
    """What argparse reads, and the overrides: `--key=value`, `--key value` and `key=value`.

    The command's own options come first, and a file of this name before an override. What is no option stands
    together at the beginning, where argparse finds any number of files.
    """
    own: list[str] = []
    files: list[str] = []
    behind: list[str] = []
    overrides: list[Override] = []
    options = command._option_string_actions
    known = tuple(sorted(options))
    rest = deque(arguments)
    several = bool(command.get_default("takes_several"))
    without_value: str | None = None
    while rest:
        word = rest.popleft()
        name, equals, _ = word.partition("=")
        if word == "--":
            behind = [word, *rest]
            break
        if name in options:
            own.append(word)
            if options[name].nargs != 0 and not equals and rest:
                own.append(rest.popleft())
        elif name in OF_RUN:
            command.error(f"{name} is an option of `tunemill run`, and not of this command")
        elif word.startswith("--") and equals:
            overrides.append(override_of(word, known))
        elif word.startswith("--") and rest and _is_value(rest[0]):
            value = rest.popleft()
            without_value = word if os.path.isfile(value) else without_value
            overrides.append(override_of(f"{word} {value}", known))
        elif WITHOUT_DASHES.match(word) and ((files and not several) or not os.path.isfile(word)):
            overrides.append(override_of(word, known))
        elif word.startswith("-"):
            own.append(word)
        else:
            files.append(word)
    if without_value and not files and not behind:
        command.error(f"{without_value} has no value before the file: write {without_value}=VALUE")
    return [*files, *own, *behind], overrides


def _is_value(text: str) -> bool:
    """Whether what follows `--key` may be its value: nothing that looks like an option."""
    return not text.startswith("-") or NUMBER.match(text) is not None


def _unrecognized(item: str, command: argparse.ArgumentParser) -> str:
    """What is said of an argument that is neither an option nor an override."""
    options = [name for name in command._option_string_actions if name.startswith("--")]
    if not item.startswith("--") or not command.get_default("takes_overrides"):
        near = nearest(item.partition("=")[0], options) if item.startswith("-") else []
        return f"unrecognized arguments: {item}" + (f"; did you mean {near[0]}?" if near else "")
    from tunemill.pipelines.config.schema import key_tree

    key = item.removeprefix("--").replace("-", "_")
    if key.split(".")[0].split("[")[0] in key_tree():
        return f"{item} has no value: write {item}=VALUE"
    near = nearest(item, [*options, *(f"--{name}" for name in key_tree())])
    meant = f"; did you mean {near[0]}?" if near else "."
    return f"unrecognized arguments: {item}{meant} A key of the YAML is set by {item}=VALUE"
