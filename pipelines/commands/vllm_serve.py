"""`tunemill vllm-serve`: a model of the pipeline in vLLM, with the `vllm` block of the YAML."""

import argparse
import importlib.util
import os
import shlex
import shutil
import sys
from typing import Any

from tunemill.pipelines.commands.options import add_command

HOST, PORT = "127.0.0.1", 8000
VLLM = "vllm.entrypoints.cli.main"
# Options that say the same as a key of `vllm`.
KEYS = (
    "dtype",
    "tensor_parallel_size",
    "data_parallel_size",
    "gpu_memory_utilization",
    "max_model_len",
    "enable_prefix_caching",
    "reasoning_parser",
    "enforce_eager",
)


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    from tunemill.pipelines.commands.chosen_model import add_model_options

    parser = add_command(commands, "vllm-serve", vllm_serve, text)
    add_model_options(parser)
    parser.add_argument("--host", metavar="ADDRESS", help=f"default: vllm.host, or {HOST}")
    parser.add_argument("--port", type=int, metavar="N", help=f"default: vllm.port, or {PORT}")
    for key in KEYS:
        parser.add_argument(f"--{key.replace('_', '-')}", metavar="VALUE", help=f"sets vllm.{key}")
    parser.add_argument("--print", action="store_true", help="print the command of vLLM and start nothing")


def vllm_serve(options: argparse.Namespace) -> int:
    """Become vLLM's server. Raises UserError where it is not installed."""
    from tunemill.pipelines.commands.chosen_model import chosen_models
    from tunemill.pipelines.commands.vllm_command import vllm_arguments
    from tunemill.pipelines.config.overrides import override_of
    from tunemill.pipelines.config.use_config import VllmSettings
    from tunemill.pipelines.graph.load import load_pipeline

    given = [(key, getattr(options, key, None)) for key in KEYS]
    options.overrides += [override_of(f"vllm.{key}={value}") for key, value in given if value is not None]
    pipeline = load_pipeline(options.pipeline, options.overrides)
    python = pipeline.use.vllm_python if pipeline.use is not None else None
    program = program_of_vllm(python, needed=not options.print)
    settings = (pipeline.use.vllm if pipeline.use is not None else None) or VllmSettings()
    (chosen,) = chosen_models(options)
    host = options.host or settings.host or HOST
    port = next(one for one in (options.port, settings.port, PORT) if one is not None)
    words = [
        *program,
        "serve",
        *vllm_arguments(settings, chosen.name, chosen.model, chosen.adapter, host, port),
    ]
    if options.print:
        print(shlex.join(words))
        return 0
    print(f"{chosen.name}: http://{host}:{port}/v1 as soon as vLLM is up. Ctrl-C ends it", flush=True)
    sys.stderr.flush()
    os.execv(words[0], words)  # noqa: S606  it takes the place of this process, with its signals
    raise AssertionError("unreachable")


def program_of_vllm(python: str | None, *, needed: bool) -> list[str]:
    """How vLLM is started here, or by another `python`; where it is not needed, how it would be. Raises UserError."""
    if python is not None:
        return [python, "-m", VLLM]
    if importlib.util.find_spec("vllm") is not None:
        return [sys.executable, "-m", VLLM]
    found = shutil.which("vllm")
    if found is not None:
        return [found]
    if needed:
        from tunemill.stages.errors import UserError

        raise UserError(
            "vLLM is not installed. It wants a torch of its own, so give it an environment of its own "
            "(python -m venv vllm && vllm/bin/pip install vllm) and put vllm/bin on PATH, or name its Python as "
            "pipeline.vllm_python; --print shows the command "
            "for another machine. `tunemill serve` serves without it"
        )
    return ["vllm"]
