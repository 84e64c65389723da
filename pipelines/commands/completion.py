"""`tunemill completion`: a script that completes commands, options, files, keys and their values in a shell."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunemill.pipelines.commands.options import add_command

SHELLS = ("bash", "zsh", "fish")
PLACES = (
    "Write it to a file that your shell reads when it completes: "
    "~/.local/share/bash-completion/completions/tunemill for bash, a folder of $fpath with the name _tunemill for zsh, "
    "~/.config/fish/completions/tunemill.fish for fish. Write it again after an update."
)
# Bash gives `--key=value` as three words, which `shtab` takes for a value `=` and whatever comes next.
BASH_WITHOUT_EQUALS = """
_tunemill_without_equals() {
  local -a words=()
  local index word at=$COMP_CWORD
  for index in "${!COMP_WORDS[@]}"; do
    word=${COMP_WORDS[index]}
    if [[ $word == "=" && ${COMP_WORDS[index-1]} == --* ]]; then
      if (( index == COMP_CWORD )); then words+=(""); fi
      if (( index < COMP_CWORD )); then (( at -= 1 )); fi
      continue
    fi
    words+=("$word")
  done
  COMP_WORDS=("${words[@]}")
  COMP_CWORD=$at
  _shtab_tunemill
}
complete -o bashdefault -F _tunemill_without_equals tunemill
"""


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "completion", completion, text)
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")
    parser.epilog = PLACES


def completion(options: argparse.Namespace) -> int:
    """Print the script."""
    # Whoever completes reads the script that was written: no other command pays for this import.
    import shtab

    parser = options.make_parser()
    keys = dict(_keys())
    for command in _commands(parser):
        if command.get_default("takes_overrides"):
            _add_keys(command, keys)
        for action in command._actions:
            if hint := _hint(action):
                action.complete = hint  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))
    if options.shell == "bash":
        print(BASH_WITHOUT_EQUALS)
    return 0


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every command, and the actions of those that have some."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command
                yield from _commands(command)


def _hint(action: argparse.Action) -> Any:
    """What `shtab` completes a value with; None for choices, numbers and words that only the user knows."""
    import shtab

    yaml = shtab.glob("*.yml", "*.yaml")
    shown = str(action.metavar)
    if action.dest in ("pipeline", "pipelines") or (action.dest, shown) == ("what", "NODE"):
        return yaml
    if shown == "DIR" or action.dest == "folder":
        return shtab.DIRECTORY
    is_file = action.type is Path or shown.startswith("FILE") or action.dest == "what"
    return shtab.FILE if is_file else None


def _add_keys(command: argparse.ArgumentParser, keys: dict[str, tuple[str, list[str]]]) -> None:
    """The keys of the YAML as options; an option of the command comes before a key of the same name."""
    for key, (description, values) in keys.items():
        if f"--{key}" not in command._option_string_actions:
            text = description.replace("%", "%%") or None
            command.add_argument(f"--{key}", choices=values or None, help=text)


def _keys() -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """Each key, what it does, and its values where there are only a few."""
    from tunemill.pipelines.config.schema import json_schema

    schema = json_schema()
    groups = {"": schema["properties"], "pipeline.": schema["properties"]["pipeline"]["properties"]}
    for prefix, properties in groups.items():
        for key, item in sorted(properties.items()):
            if prefix + key != "pipeline":
                yield prefix + key, (item.get("description", ""), list(dict.fromkeys(_values(item))))


def _values(item: dict[str, Any]) -> Iterator[str]:
    """The words that a schema allows, as a YAML spells them."""
    given = [*item.get("enum", ()), *([item["const"]] if "const" in item else ())]
    for value in given:
        if isinstance(value, str) and value.isidentifier():
            yield value
    if item.get("type") == "boolean" or any(isinstance(value, bool) for value in given):
        yield from ("true", "false")
    for part in item.get("anyOf", ()):
        yield from _values(part)
