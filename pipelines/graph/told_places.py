"""What is published names no machine: of local paths and of this machine's name only what others need is told."""

import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A whole value that is a local path: absolute, in a home folder, or out of the folder of the YAML.
PART = r"/(?! )[^/\\<>|{}*?\"\n]+(?<! )"
LOCAL_PATH = re.compile(rf"(?:~[\w.-]*|\.\.|)(?:{PART}){{2,}}/?|(?:~[\w.-]*|\.\.){PART}/?")
FILE_URL = re.compile(r"file://(?:localhost)?(?=/)")
# A device by a number that no other one has.
ONE_DEVICE = re.compile(r"\b(GPU|MIG)-[0-9a-fA-F][0-9a-fA-F/-]{7,}")
SEPARATORS = re.compile(r"([:;,\s])")
END_OF_PATH = r"(?P<rest>(?:/[^\s:;,'\"`<>|]*)?)(?![\w.-])"
HERE = "localhost"


@dataclass(frozen=True)
class Machine:
    """What is of this machine alone: the folder of the YAML, other folders of its user, its names."""

    folder: Path
    others: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = ()
    # Files of one name in several folders outside of `folder`, each with what it is called.
    names: Mapping[str, str] = field(default_factory=dict)

    def knowing(self, paths: Iterable[str]) -> "Machine":
        """The machine with these paths told apart."""
        names: dict[str, str] = {}
        for path in sorted(set(paths)):
            plain, number = _inside(self.folder, path) or _last(path), 1
            name = plain
            while name in names.values():
                number += 1
                name = f"/{number}{plain}"
            names[path] = name
        return Machine(self.folder, self.others, self.hosts, names)


def this_machine(folder: Path, hosts: Iterable[str] = ()) -> Machine:
    """This machine, for a YAML in `folder`; `hosts` are other machines that are not to be named."""
    named = {name for name in (socket.gethostname(), *hosts) if name not in ("", HERE)}
    home = Path.home()
    # Nothing is told apart by the root of all files.
    others = tuple(path for path in (home, Path.cwd()) if len(path.parts) > 1)
    return Machine(folder.absolute(), others, tuple(sorted(named)))


def told(value: Any, machine: Machine) -> Any:
    """A document as others may read it: paths of this machine are shortened, its name is `localhost`."""
    if isinstance(value, str):
        return _told_text(value, machine)
    if isinstance(value, list):
        return [told(item, machine) for item in value]
    if isinstance(value, dict):
        return {_told_text(name, machine): told(item, machine) for name, item in value.items()}
    return value


def told_variable(value: str) -> str:
    """The value of a variable of the environment: of paths the last part, of devices no number of their own."""
    parts = SEPARATORS.split(ONE_DEVICE.sub(r"\1", value))
    return "".join(Path(part).name if "/" in part else part for part in parts)


def short_path(path: str, machine: Machine) -> str:
    """The end of a local path, as an absolute one: from the folder of the YAML on, or else its last part."""
    return machine.names.get(path) or _inside(machine.folder, path) or _last(path)


def _inside(folder: Path, path: str) -> str | None:
    if not Path(path).is_relative_to(folder) or Path(path) == folder:
        return None
    return f"/{Path(path).relative_to(folder).as_posix()}"


def _last(path: str) -> str:
    return f"/{Path(path).name}"


def _told_text(text: str, machine: Machine) -> str:
    if text in machine.names:
        return machine.names[text]
    bare = FILE_URL.sub("", text)
    if LOCAL_PATH.fullmatch(bare) or bare == str(machine.folder):
        is_open = bare.startswith(("..", "~"))
        return Path(bare).name if is_open else short_path(bare, machine)
    for folder in (machine.folder, *machine.others):
        if str(folder) in text:
            pattern = rf"(?<![\w.-])(?:file://)?(?P<path>{re.escape(str(folder))}{END_OF_PATH})"
            text = re.sub(pattern, lambda found: short_path(found["path"], machine), text)
    for host in machine.hosts:
        if host in text:
            text = (
                HERE
                if text == host
                else re.sub(rf"(://(?:[^\s/@]*@)?){re.escape(host)}(?![\w-])", rf"\1{HERE}", text)
            )
    return text
