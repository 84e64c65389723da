"""Classes of one's own that a YAML names, read as text: no line of them runs, and no library is imported."""

import ast
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from inspect import Parameter, Signature
from pathlib import Path

# What binds a name, and has names of its own.
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def dotted(name: str) -> str:
    """`folder/file.py:Class` as `folder.file.Class`; other names stay."""
    place, colon, inner = name.partition(".py:")
    return f"{place.replace('/', '.').removeprefix('..')}.{inner}" if colon else name


def file_of(name: str, files: Sequence[str]) -> Path | None:
    """Which of the local files holds the module of `module.Class`: of those that end so the one with least before."""
    *module, _ = dotted(name).split(".")
    if not module:
        return None
    wanted = [(*module[:-1], f"{module[-1]}.py"), (*module, "__init__.py")]
    found = [path for path in map(Path, files) if any(path.parts[-len(one) :] == one for one in wanted)]
    return min(found, key=lambda path: len(path.parts), default=None)


def looked_for(name: str) -> str:
    """The file that the module of `module.Class` would be; of what names no module, how it would be named."""
    place, colon, _ = name.partition(":")
    if colon:
        return f"{place.removesuffix('.py')}.py"
    module = name.rpartition(".")[0]
    return f"{module.replace('.', '/')}.py" if module else f"{name}.<name>"


def module_tree(file: Path) -> ast.Module:
    """What a file of Python says. Raises ValueError where it cannot be read or does not parse, saying where."""
    try:
        return ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise ValueError(f"{file}, line {error.lineno}: {error.msg}") from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{file} cannot be read as Python: {error}") from None


def readable_trees(files: Sequence[str]) -> Iterator[tuple[str, ast.Module]]:
    """The files with what they say; those that cannot be read are left to whoever tells why."""
    for file in files:
        try:
            yield file, module_tree(Path(file))
        except ValueError:
            continue


def may_bind(tree: ast.Module, name: str) -> bool:
    """Whether a module may have this name: bound at its top, or below `if` and its like, or by what says it later."""
    nodes = list(outside_of_functions(tree))
    bound = {one.name for one in nodes if isinstance(one, SCOPES)}
    bound |= {one.id for one in nodes if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    bound |= {one.asname or one.name.partition(".")[0] for one in nodes if isinstance(one, ast.alias)}
    bound |= {said for one in ast.walk(tree) if isinstance(one, ast.Global) for said in one.names}
    return bool(bound & {name, "*", "__getattr__"})


def outside_of_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """What stands in a tree, and not within its functions and classes."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, SCOPES):
            yield from outside_of_functions(node)


def class_in(tree: ast.Module, name: str) -> ast.ClassDef | None:
    """The class of this name at the top of a module."""
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)


def with_bases(tree: ast.Module, found: ast.ClassDef) -> list[ast.ClassDef]:
    """The class, and its bases as far as the module has them, the nearest first."""
    classes = [found]
    for one in classes:
        for base in one.bases:
            other = class_in(tree, base.id) if isinstance(base, ast.Name) else None
            if other is not None and other not in classes:
                classes.append(other)
    return classes


def classes_of(name: str, files: Sequence[str]) -> tuple[Path, list[ast.ClassDef]]:
    """The file of `module.Class`, which is among the files, and the class with its bases as far as that file has them.

    Raises ValueError where the file cannot be read, or has no such class.
    """
    file, wanted = file_of(name, files), dotted(name).rpartition(".")[2]
    assert file is not None, "checked"
    tree = module_tree(file)
    found = class_in(tree, wanted)
    if found is None:
        raise ValueError(f"{file} has no class {wanted}")
    return file, with_bases(tree, found)


def methods_of(classes: Sequence[ast.ClassDef]) -> dict[str, ast.FunctionDef]:
    """The methods of a class and its bases, by name, the nearest of each."""
    found: dict[str, ast.FunctionDef] = {}
    for one in classes:
        for node in one.body:
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, node)
    return found


def signature_of(method: ast.FunctionDef | ast.AsyncFunctionDef) -> Signature | None:
    """How a method can be called; None where the source does not say it: of a decorated one."""
    given = method.args
    plain = [*given.posonlyargs, *given.args]
    defaults = [Parameter.empty] * (len(plain) - len(given.defaults)) + [None] * len(given.defaults)
    found = [
        Parameter(
            one.arg,
            Parameter.POSITIONAL_ONLY if one in given.posonlyargs else Parameter.POSITIONAL_OR_KEYWORD,
            default=default,
        )
        for one, default in zip(plain, defaults, strict=True)
    ]
    if given.vararg:
        found.append(Parameter(given.vararg.arg, Parameter.VAR_POSITIONAL))
    for one, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found.append(
            Parameter(one.arg, Parameter.KEYWORD_ONLY, default=Parameter.empty if value is None else None)
        )
    if given.kwarg:
        found.append(Parameter(given.kwarg.arg, Parameter.VAR_KEYWORD))
    try:
        return None if method.decorator_list else Signature(found)
    except ValueError:
        # Two parameters of one name, which is an error when the file is read.
        return None


def misfit(own: Signature, pattern: Signature, *, by_name: bool = False) -> str | None:
    """Why what has one signature cannot be called as what has another, behind its name; None where it can.

    `by_name`: what has a default is given by name.
    """
    wanted = pattern.parameters.values()
    named = {one.name: None for one in wanted if by_name and one.default is not Parameter.empty}
    try:
        own.bind(*[None for one in wanted if one.name not in named], **named)
    except TypeError:
        has, given = (", ".join(one.parameters) for one in (own, pattern))
        return f"({has}) cannot be called with ({given}). Take these"
    return None


def not_installed(files: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """What the files import at their tops and nobody has: file, name of the package, line."""
    own = {part for file in files for part in Path(file).with_suffix("").parts}
    for file, tree in readable_trees(files):
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for package in (name.partition(".")[0] for name in names):
                if package not in own and package not in sys.modules and not _is_installed(package):
                    yield file, package, node.lineno


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
