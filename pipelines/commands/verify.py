"""`tunemill verify`: whether a published folder is what was signed."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunemill.pipelines.commands.options import add_command, add_json, print_json
from tunemill.resources.errors import StoreError
from tunemill.resources.protocols import SIGNATURE_FILE, SIGNING, UNSIGNED


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "verify", verify, text)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="PUBLIC.pem",
        help="the public key of whoever has signed it",
    )
    add_json(parser)


def verify(options: argparse.Namespace) -> int:
    """0 where every file is what was signed by the owner of the key; 1 where one is not, and which."""
    folder: Path = options.folder
    signature = folder / SIGNATURE_FILE
    for path, what in ((folder, "folder"), (signature, "signature"), (options.key, "key")):
        if not path.exists():
            raise StoreError(f"{path}: there is no such {what}")
    if not all(map(find_spec, SIGNING)):
        raise StoreError("verify needs a package: pip install 'tunemill[signing]'")
    reason = fault_of(folder, options.key)
    if options.json:
        print_json({"verified": reason is None, "reason": reason})
    elif reason is None:
        print(f"{folder}: every file is what was signed")
    else:
        print(f"{folder}: refused: {reason}")
    return 0 if reason is None else 1


def fault_of(folder: Path, key: Path) -> str | None:
    """Why a folder is not what the owner of the key has signed; None where it is."""
    from cryptography.exceptions import InvalidSignature
    from model_signing import hashing, verifying

    ignored = hashing.Config().set_ignored_paths(
        paths=[Path(name) for name in UNSIGNED], ignore_git_paths=False
    )
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
        verifier.set_hashing_config(ignored).verify(folder, folder / SIGNATURE_FILE)
    except InvalidSignature:
        return "it was signed with another key"
    except (ValueError, TypeError, KeyError, OSError) as error:
        return str(error) or type(error).__name__
    return None
