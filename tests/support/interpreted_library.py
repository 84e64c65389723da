"""What Triton's interpreter lacks of the compiler, for kernels of other people (Liger, Cut Cross Entropy).

Imported in an interpreted child process before the library, this adds the two things that their kernels use:

* a Python float reaches a kernel as a float32 scalar (the interpreter passes it on as it is);
* the functions of the device's mathematics library, `rsqrt`, `tanh` and `log1p`, written in Triton's own
  language (the interpreter has none of it). How the device's own round stays unproven.

The interpreter keeps bfloat16 as 16-bit integers and multiplies two of them as such, so kernels that do are
tested in float16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton
from triton import language as tl
from triton.language.extra import libdevice
from triton.runtime import interpreter

as_argument = interpreter._implicit_cvt


def as_compiled_argument(argument: Any) -> Any:
    if isinstance(argument, float):
        value = np.array([argument], np.float32)
        return tl.tensor(interpreter.TensorHandle(value, tl.float32), tl.float32)
    return as_argument(argument)


@triton.jit
def rsqrt(x):
    return 1.0 / tl.sqrt(x)


@triton.jit
def tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def log1p(x):
    return tl.log(1.0 + x)


interpreter._implicit_cvt = as_compiled_argument
for function in (rsqrt, tanh, log1p):
    setattr(libdevice, function.__name__, function)
