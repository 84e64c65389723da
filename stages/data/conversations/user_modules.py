"""Python that a user wrote: loading it from the files that the key was made of, and nothing beside them."""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.errors import SettingError, SourceError, UserError
from tunemill.stages.text_files import fault_of_code

LOADER = "load"
# Where Python looked for modules before any code of a user ran.
AT_START = frozenset(sys.path)


def module_and_function(name: str, file: str) -> tuple[str, str]:
    """Module and function that the dotted name `name` means, whose module is in `file`.

    A name without a function means the module's function `load`.
    """
    parts = name.split(".")
    path = Path(file).with_suffix("")
    place = (path.parent if path.name == "__init__" else path).parts
    if place[-len(parts) :] == tuple(parts):
        return name, LOADER
    return ".".join(parts[:-1]), parts[-1]


def load_function(key: str, name: str, files: Sequence[str]) -> Callable[..., Any]:
    """The function that `name` means; `files` are the module's file and the local ones that it may import.

    Raises SettingError, naming `key`, where the module does not load or has no such function.
    """
    module_name, function = module_and_function(name, files[0])
    with local_modules(module_name, files), UserFailures(f"{key}: {name}", files, SettingError):
        module: ModuleType = import_module(module_name)
    found: Callable[..., Any] | None = getattr(module, function, None)
    if not callable(found):
        raise SettingError(f"{key}: {name}: {files[0]} has no function {function!r}")
    return found


class UserFailures:
    """Turns what user code raises into `error`, with the line it comes from; our own errors pass."""

    def __init__(self, what: str, files: Sequence[str], error: type[UserError | BadRowError]) -> None:
        self.what, self.files, self.error = what, frozenset(files), error

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(raised, Exception) or isinstance(raised, UserError | BadRowError):
            return
        if isinstance(raised, SyntaxError) and raised.filename in self.files:
            place = f" ({raised.filename}, line {raised.lineno})"
            raised = SyntaxError(raised.msg)
        else:
            place = self._place(trace)
        reason = f"{type(raised).__name__}: {raised}" if str(raised) else type(raised).__name__
        raise self.error(f"{self.what} raised {reason}{place}") from raised

    def _place(self, trace: TracebackType | None) -> str:
        place = ""
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if file in self.files:
                place = f" ({file}, line {trace.tb_lineno})"
            trace = trace.tb_next
        return place


@contextmanager
def local_modules(module: str, files: Sequence[str]) -> Iterator[None]:
    """While this lasts, `import` finds exactly these local files, before all others; then it forgets them."""
    names = module_names(module, files)
    finder = LocalFinder(names, _root(module, files))
    roots = {name.split(".")[0] for name in names}
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in roots}
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in roots]:
            del sys.modules[name]
        sys.modules.update(hidden)


def module_names(module: str, files: Sequence[str]) -> dict[str, Path]:
    """Dotted names of the local modules, seen from the folder in which `module` lies in the first file."""
    root = _root(module, files)
    names = {}
    for file in map(Path, files):
        place = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        parts = place.parent.parts if place.name == "__init__.py" else place.with_suffix("").parts
        names[".".join(parts)] = file
    return names


def _root(module: str, files: Sequence[str]) -> Path:
    first = Path(files[0])
    return first.parents[len(module.split(".")) + (first.name == "__init__.py") - 1]


class LocalFinder(MetaPathFinder):
    """Finds modules in the given files, below `root`; a folder of some of them is a package.

    Raises SourceError for another one below `root` that is found because user code has changed `sys.path`.
    """

    def __init__(self, files: dict[str, Path], root: Path) -> None:
        self.files, self.root = files, root

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        file = self.files.get(fullname)
        is_package = any(name.startswith(f"{fullname}.") for name in self.files)
        if file is None:
            if path is None and not is_package:
                self._refuse_by_other_ways(fullname)
            return ModuleSpec(fullname, None, is_package=True) if is_package else None
        within: list[str] | None = [] if is_package or file.name == "__init__.py" else None
        loader = FreshLoader(fullname, str(file))
        return spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=within)

    def _refuse_by_other_ways(self, name: str) -> None:
        # Libraries import what they have written themselves, such as the code that comes with a model.
        if _importer() not in {str(file) for file in self.files.values()}:
            return
        added = {one for one in sys.path if one not in AT_START and _is_own(Path(one), self.root)}
        found = PathFinder.find_spec(name) if added else None
        # A folder without __init__.py has no file of its own.
        places = (
            [found.origin]
            if found and found.origin
            else list((found and found.submodule_search_locations) or [])
        )
        place = next((one for one in places if _is_own(Path(one), self.root)), None)
        if place is None:
            return
        raise SourceError(
            f"{place}: imported by way of sys.path, so the cache does not know of it, and would not notice a "
            f"change. Import it by an import statement and its place beside the YAML, without a change to sys.path"
        )


def _importer() -> str:
    """The file whose import is being done."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename == __file__ or "importlib" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    return frame.f_code.co_filename


def _is_own(path: Path, root: Path) -> bool:
    """Whether a place is of the user's own files, and not of packages that are installed below them."""
    return path.resolve().is_relative_to(root.resolve()) and not {"site-packages", "dist-packages"} & {
        *path.parts
    }


class FreshLoader(SourceFileLoader):
    """Compiles the source itself: bytecode beside it may be that of an older edit, and none is written."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        # Python itself says nothing of such bytes in comments, and reads the rest.
        if reason := fault_of_code(Path(path)):
            raise SourceError(reason)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def parameters(function: Callable[..., Any]) -> frozenset[str]:
    """Names of the parameters that a function takes."""
    return frozenset(inspect.signature(function).parameters)
