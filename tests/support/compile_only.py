"""Compiles Triton kernels for a GPU that is not there, from the launches that the host code really makes.

Triton asks its active driver for the target and gets a launcher from it. `CompileOnly` is a driver without a
device: the host code runs over meta tensors, every launch is specialised and compiled down to machine code
as on the GPU, and nothing is executed. What `recorded` yields are those launches.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.cache import get_cache_manager
from triton.runtime.driver import driver as drivers
from triton.runtime.jit import JITFunction

TARGETS = {
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_80": GPUTarget("cuda", 80, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True)
class Launch:
    """One launch and what it was compiled to."""

    kernel: Any
    grid: tuple[int, int, int]
    signature: dict[str, str]
    metadata: Any
    files: dict[str, Path]

    @property
    def name(self) -> str:
        module: str = self.kernel.__module__
        return f"{module.rpartition('.')[2]}.{self.kernel.__name__}"

    def resources(self) -> dict[str, int]:
        """Registers and stack bytes (0 where nothing is spilled) per thread, shared bytes per program."""
        command = [str(CUOBJDUMP), "-res-usage", str(self.files["cubin"])]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = {name: int(size) for name, size in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
        return {
            "registers": found["REG"],
            "spilled": found["STACK"] + found["LOCAL"],
            "shared": int(self.metadata.shared),
        }

    def accesses(self) -> list[tuple[str, int]]:
        """(``ld``, ``st`` or ``cp``, bytes per thread) of each access to global memory in the PTX."""
        ptx = self.files["ptx"].read_text()
        pattern = re.compile(r"\b(ld|st)\.global(?:\.\w+)*?(?:\.v(\d))?\.[bfsu](\d+)\b")
        direct = [(kind, int(count or 1) * int(bits) // 8) for kind, count, bits in pattern.findall(ptx)]
        ahead = re.findall(r"\bcp\.async\.\w+\.shared\.global \[[^]]*\], \[[^]]*\], (?:0x)?(\d+)", ptx)
        return direct + [("cp", int(size, 16)) for size in ahead]


class CompileOnly:
    """A Triton driver for `target` that keeps launches in `launches` and runs none of them."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target
        self.launches: list[Launch] = []
        self.utils = SimpleNamespace(
            load_binary=lambda *_: (object(), object(), 0, 0, 1024),
            get_device_properties=lambda _: {"max_shared_mem": 227 * 1024},
            unload_module=lambda _: None,
        )

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        group = get_cache_manager(metadata.hash).get_group(f"{source.name}.json")
        files = {Path(name).suffix[1:]: Path(path) for name, path in (group or {}).items()}

        def launch(grid_0: int, grid_1: int, grid_2: int, *_: Any) -> None:
            grid = (grid_0, grid_1, grid_2)
            self.launches.append(Launch(source.fn, grid, source.signature, metadata, files))

        return launch

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        """A name that no other driver has: Triton keeps kernels, and their launchers, by it."""
        return f"compile only, {id(self)}"

    def get_current_stream(self, device: str) -> int:  # noqa: ARG002
        return 0


@contextmanager
def compile_only(target: str) -> Iterator[list[Launch]]:
    """The launches made inside, compiled for `target` instead of run."""
    before, compiling = drivers._active, CompileOnly(TARGETS[target])
    drivers.set_active(compiling)
    try:
        yield compiling.launches
    finally:
        drivers._active = before


def kernels_of(package: ModuleType) -> dict[str, Any]:
    """``module.function`` to every jitted function that the modules of `package` define."""
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, JITFunction) and value.__module__ == module.__name__:
                found[f"{info.name}.{name}"] = value
    return found


def called_by(kernel: Any) -> set[Any]:
    """The jitted functions that `kernel` calls, and those that these call."""
    names = set(re.findall(r"\b\w+\b", kernel.src)) & set(kernel.fn.__globals__)
    called = {kernel.fn.__globals__[name] for name in names - {kernel.fn.__name__}}
    functions = {value for value in called if isinstance(value, JITFunction)}
    return functions.union(*(called_by(function) for function in functions))
