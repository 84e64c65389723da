"""`tunemill merge-sharded-fsdp-weights`: a checkpoint that FSDP stored in parts becomes one safetensors file."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_json, print_json
from tunemill.pipelines.config.document import read_document
from tunemill.resources.local import local_path
from tunemill.stages.errors import SourceError
from tunemill.stages.models.hub_files.wanted import CONFIGS, TOKENIZER
from tunemill.stages.models.sharded_weights import METADATA, PARTS, TOGETHER

BODY = "tunemill.stages.models.sharded_weights_body"


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "merge-sharded-fsdp-weights", merge, text)
    parser.add_argument("config", type=Path, metavar="CONFIG.YML", help="a YAML with output_dir")
    parser.add_argument(
        "--from", dest="source", metavar="FOLDER", help=f"the parts (default: output_dir/{PARTS})"
    )
    parser.add_argument("--to", dest="target", metavar="FOLDER", help=f"default: output_dir/{TOGETHER}")
    add_json(parser)


def merge(options: argparse.Namespace) -> int:
    """Find the parts, and join them in a process of its own."""
    asked = read_document(options.config).data.get("output_dir")
    if asked is None and (options.source is None or options.target is None):
        raise SourceError(
            f"{options.config}: no output_dir, in which the checkpoint would be. Set it, or give --from and --to."
        )
    output = Path() if asked is None else local_path(asked, "output_dir")
    source = _parts(output / PARTS if options.source is None else local_path(options.source, "--from"))
    target = output / TOGETHER if options.target is None else local_path(options.target, "--to")
    # A run links its merged model there, and what that link leads to is an artifact.
    taken = any(target.iterdir()) if target.is_dir() else target.exists() or target.is_symlink()
    if taken:
        raise SourceError(f"{target}: there already; nothing is overwritten. Name another folder with --to.")
    done = subprocess.run(
        [sys.executable, "-P", "-m", BODY, str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SourceError((done.stderr.splitlines() or [f"{source}: could not be read"])[-1])
    names = sorted(path.name for path in source.parent.iterdir() if path.is_file())
    beside = [name for name in names if name in CONFIGS or TOKENIZER.fullmatch(name)]
    for name in beside:
        shutil.copyfile(source.parent / name, target / name)
    if options.json:
        print_json({"from": str(source), "path": str(target), "copied": beside})
    else:
        print(f"{source}: written to {target / 'model.safetensors'}")
    return 0


def _parts(folder: Path) -> Path:
    """The folder of the parts: this one, or that of the model in a checkpoint."""
    for one in (folder, folder / PARTS):
        if (one / METADATA).is_file():
            return one
    raise SourceError(
        f"{folder}: no checkpoint that FSDP stored in parts (it has no {METADATA}). With SHARDED_STATE_DICT the "
        f"weights are in {PARTS}, of output_dir or of one of its checkpoints: name it with --from."
    )
