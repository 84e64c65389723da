"""Which versions are installed of lm_eval and of the modules that `!function`s of local tasks run: parts of keys."""

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tunemill.stages.errors import SourceError
from tunemill.stages.evaluation.harness.task_files import functions_in, is_place, local_tasks
from tunemill.stages.package_versions import version_or_contents

# The harness itself, whose version is in every key.
PACKAGE = "lm_eval"


def versions_of(names: Sequence[str]) -> dict[str, Any]:
    """What a key says of the code behind tasks: lm_eval's version to the last digit, for in it lie its tasks, and what
    scores all of them; and those of the packages that functions of the local tasks among `names` are taken from.

    Of what no distribution of that name has brought, a hash of its Python files.
    """
    packages = sorted(set(_packages(names)) - {PACKAGE})
    of_functions = {"function_versions": {package: version_or_contents(package) for package in packages}}
    return {"lm_eval_version": installed_version(), **(of_functions if packages else {})}


def installed_version() -> str | None:
    """The version of lm_eval that is installed here, such as 0.4.13."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return None


def _packages(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if not is_place(name):
            continue
        try:
            tasks = local_tasks(Path(name))
        except (SourceError, OSError):
            # What is wrong with it is told elsewhere.
            continue
        for task in tasks:
            for one in (task, *task.inner):
                functions = (function for function in functions_in(one.config) if function.file is None)
                yield from (function.name.partition(".")[0] for function in functions)
