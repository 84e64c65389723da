"""`tunemill fetch`: copy examples, documentation or DeepSpeed's configs to where they can be changed."""

import argparse
import filecmp
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_json, print_json

DEEPSPEED = "deepspeed_configs"
THERE = ("examples", "docs")


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "fetch", fetch, text)
    parser.add_argument("what", choices=(*THERE, DEEPSPEED), help="what to copy; needs no network")
    parser.add_argument(
        "--dest", metavar="FOLDER", help="default: a folder of that name where the command runs"
    )
    parser.add_argument("--force", action="store_true", help="write over files that differ")
    add_json(parser)


def fetch(options: argparse.Namespace) -> int:
    """Copy what is not there yet. Raises UserError for files that differ, before one is written."""
    # Only here: whoever asks for help waits for nothing else.
    from tunemill.pipelines.commands.package_files import files_of, folder_of
    from tunemill.stages.training.deepspeed import CONFIGS

    if options.what == DEEPSPEED:
        with TemporaryDirectory() as made:
            return _copy(_write_configs(Path(made)), options, [Path(name) for name in CONFIGS])
    return _copy(folder_of(options.what), options, list(files_of(options.what)))


def _write_configs(folder: Path) -> Path:
    """DeepSpeed's settings that come with Tunemill, as files in a folder."""
    from tunemill.stages.training.deepspeed import CONFIGS

    for name, settings in CONFIGS.items():
        (folder / name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


def _copy(source: Path, options: argparse.Namespace, files: Sequence[Path]) -> int:
    from tunemill.resources.local import local_path
    from tunemill.stages.errors import SourceError

    target = local_path(options.dest or options.what, "--dest")
    new = [file for file in files if not (target / file).exists()]
    changed = [file for file in files if file not in new and not _alike(source / file, target / file)]
    if changed and not options.force:
        shown = ", ".join(str(target / file) for file in changed[:3])
        raise SourceError(
            f"{shown}{' and more' if changed[3:] else ''}: there already, and different; nothing was copied. Name "
            f"another folder with --dest, or write over {len(changed)} files with --force"
        )
    for file in (*new, *changed):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, target / file)
    written = [str(file) for file in (*new, *changed)]
    if options.json:
        print_json({"path": str(target), "written": written, "there": len(files) - len(written)})
    else:
        print(f"{target}: {len(written)} files written, {len(files) - len(written)} there already")
    return 0


def _alike(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)
