"""`tunemill init`: look at rows, and write a YAML that trains on them."""

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.options import add_command
from tunemill.resources.local import local_path
from tunemill.stages.errors import SettingError, SourceError

if TYPE_CHECKING:
    from tunemill.pipelines.commands.row_kinds import Kind

# Small enough for a CPU, with a chat template.
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "init", init, text)
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="rows: .jsonl, .json, .csv, .parquet and others"
    )
    parser.add_argument(
        "--base-model",
        default=BASE_MODEL,
        metavar="FOLDER",
        help=f"the model to train (default: {BASE_MODEL})",
    )
    parser.add_argument(
        "--output", default="pipeline.yml", metavar="FILE.yml", help="what to write (default: pipeline.yml)"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE.yml if there is one")


def init(options: argparse.Namespace) -> int:
    """Look at the files, write the YAML, say what was found and how to go on."""
    # What reads rows takes a while to import.
    from tunemill.pipelines.commands.first_rows import first_rows
    from tunemill.pipelines.commands.new_yaml import new_yaml
    from tunemill.pipelines.commands.row_kinds import kind_of_rows

    for name in (*options.files, options.base_model, options.output):
        _check_name(name)
    target = local_path(options.output, "the YAML")
    _check_target(target, options.files, replaces=options.force)
    kinds = [kind_of_rows(name, first_rows(name)) for name in options.files]
    _check_goals(options.files, kinds)
    base_model = _checked_model(options.base_model)
    text = new_yaml(kinds, base_model, target.absolute().parent, target.stem)
    _write(target, text, replaces=options.force)
    _say(options, kinds, target)
    return 0


def _check_name(name: str) -> None:
    if name == "":
        raise SettingError("a name is empty; give the name of a file")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise SettingError(f"{name!r} is no text in UTF-8, as a YAML is; rename it") from None


def _check_target(target: Path, files: Sequence[str], *, replaces: bool) -> None:
    if not target.absolute().parent.is_dir():
        raise SettingError(f"--output {target}: there is no folder {target.parent}; make it first")
    if target.is_dir():
        raise SettingError(f"--output {target} is a folder; name a file in it")
    if os.path.lexists(target) and not replaces:
        raise SettingError(f"{target} is there already; --force replaces it, --output writes another file")
    for name in files:
        if target.exists() and Path(name).exists() and target.samefile(name):
            raise SettingError(f"--output {target} is the file of rows itself; name another file")


def _check_goals(names: Sequence[str], kinds: "Sequence[Kind]") -> None:
    """Refuses files that are given twice, or no one method trains on."""
    paths = [os.path.realpath(kind.path) for kind in kinds]
    twice = [name for number, name in enumerate(names) if paths[number] in paths[:number]]
    if twice:
        raise SourceError(f"{twice[0]} is given twice; give each file once")
    for name, kind in zip(names, kinds, strict=True):
        if kind.goal != kinds[0].goal:
            raise SourceError(
                f"{names[0]} holds {kinds[0].goal.rows} and {name} {kind.goal.rows}; one model is not trained on "
                "both at once. Write a YAML for each"
            )


def _checked_model(name: str) -> str:
    """The name of the model. Raises SettingError for a local path that leads to no folder."""
    path = Path(os.path.expanduser(name))  # noqa: PTH111  a user that there is not is a name
    if path.is_dir() or not (path.exists() or name.startswith((".", "/", "~"))):
        return name
    raise SettingError(
        f"--base-model {name}: there is no such folder; give one with config.json and safetensors"
    )


def _write(target: Path, text: str, *, replaces: bool) -> None:
    """Write the YAML once `check` has nothing against it. Raises ConfigError where it has."""
    from tunemill.pipelines.config.problems import ConfigError
    from tunemill.pipelines.graph.load import load_pipeline
    from tunemill.pipelines.graph.looks import everything

    draft = target.with_name(f".{target.name[:100]}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        load_pipeline(draft, (), everything)
        if replaces:
            draft.replace(target)
        else:
            with target.open("x", encoding="utf-8") as file:
                file.write(text)
    except ConfigError as error:
        raise ConfigError(target, error.problems) from None
    finally:
        draft.unlink(missing_ok=True)


def _say(options: argparse.Namespace, kinds: "Sequence[Kind]", target: Path) -> None:
    """What was found, what was written, and what to do next."""
    for name, kind in zip(options.files, kinds, strict=True):
        print(f"{name}: {kind.said}")
        if kind.strays:
            print(f"  {kind.strays} of the {kind.looked} looked at are of another kind and will be set aside")
            print(f"  ({kind.first_stray})")
    print(f"written: {target}")
    local = Path(os.path.expanduser(options.base_model)).is_dir()  # noqa: PTH111  as above
    if not local and "://" not in options.base_model:
        print(
            f"base_model: {options.base_model} is no folder on this machine: it is taken for a model of the Hub"
        )
    named = shlex.quote(str(target))
    print("\nnext:")
    print(f"  tunemill check {named}   # every mistake with its line")
    print(f"  tunemill plan {named}    # what will run, and why")
    print(f"  tunemill run {named}     # train, merge and evaluate")
