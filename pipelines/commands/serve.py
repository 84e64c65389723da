"""`tunemill serve`: a model of the pipeline behind OpenAI's protocol, on this machine."""

import argparse
import socket
import sys
from importlib import import_module
from typing import Any

from tunemill.pipelines.commands.options import add_command

HOST, PORT = "127.0.0.1", 8000
ENGINES = ("transformers", "vllm")
# At most so many clients wait until they are heard.
BACKLOG = 128


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    from tunemill.pipelines.commands.chosen_model import add_model_options
    from tunemill.pipelines.commands.sampling_options import add_sampling

    parser = add_command(commands, "serve", serve, text)
    add_model_options(parser)
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help=f"default: {ENGINES[0]}")
    parser.add_argument("--host", metavar="ADDRESS", help=f"default: {HOST}, which only this machine reaches")
    parser.add_argument("--port", type=int, metavar="N", help=f"default: {PORT}; 0: one that is free")
    parser.add_argument("--print", action="store_true", help="with --engine vllm: print its command only")
    add_sampling(parser)


def serve(options: argparse.Namespace) -> int:
    """Load the model and answer until Ctrl-C."""
    from tunemill.pipelines.commands.chosen_model import chosen_models
    from tunemill.pipelines.commands.sampling_options import sampling_of
    from tunemill.stages.errors import SettingError
    from tunemill.stages.models.chat.sampling import Sampling

    usual = sampling_of(options)
    if options.engine == "vllm":
        from tunemill.pipelines.commands.vllm_serve import vllm_serve

        if usual != Sampling():
            raise SettingError(
                "--temperature, --top-p, --max-new-tokens, --seed and --stop are not passed on to vLLM: its clients "
                "say them with each request. Take them out"
            )

        return vllm_serve(options)
    if options.print:
        raise SettingError("--print: of --engine vllm, which is a program of its own. Take it out")
    host = options.host or HOST
    taken = listening(host, PORT if options.port is None else options.port)
    (chosen,) = chosen_models(options)
    # Only here: torch takes seconds to import.
    from tunemill.pipelines.commands.speaking import Speakers

    print(f"loading {chosen.name} ...", file=sys.stderr)
    speakers = Speakers.load([chosen], usual, plain=False)
    import uvicorn

    body = import_module("tunemill.stages.models.chat.server_body")
    app = body.make_app(speakers.loaded[chosen.name], chosen.name, usual)
    taken.listen(BACKLOG)
    address = f"http://{host}:{taken.getsockname()[1]}/v1"
    print(f"{chosen.name}: {address}; the model is called {chosen.name!r}. Ctrl-C ends it", flush=True)
    try:
        body.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[taken])
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 0


def listening(host: str, port: int) -> socket.socket:
    """A socket with the address, taken before a model is loaded. Raises UserError where another has it."""
    from tunemill.stages.errors import UserError

    taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except (OSError, OverflowError) as error:
        taken.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{host}, port {port}: {reason}. Name another with --port, or 0 for any") from None
    return taken
