"""Giving a running vLLM other weights: an adapter beside its base, or those of a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openai

from tunemill.stages.errors import SettingError
from tunemill.stages.models.vllm.client_body import Client

# What a server must find in its environment.
TAKES_ADAPTERS = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
TAKES_WEIGHTS = {"VLLM_SERVER_DEV_MODE": "1"}


def load_adapter(client: Client, name: str, folder: Path) -> None:
    """Serve an adapter by a name that nothing had before: what was computed with another one is never taken for its.

    Raises SettingError where the server does not take it.
    """
    body = {"lora_name": name, "lora_path": str(folder)}
    _post(client, "/v1/load_lora_adapter", body, TAKES_ADAPTERS, "--enable-lora --max-lora-rank RANK")


def unload_adapter(client: Client, name: str) -> None:
    """Serve it no longer. Raises SettingError."""
    body = {"lora_name": name}
    _post(client, "/v1/unload_lora_adapter", body, TAKES_ADAPTERS, "--enable-lora --max-lora-rank RANK")


def load_weights(client: Client, folder: Path) -> None:
    """Take the weights of a folder for those of the model, and forget what was computed with others.

    Raises SettingError where the server does not.
    """
    weights = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
    steps: list[tuple[str, Mapping[str, Any]]] = [
        ("/pause", {}),
        ("/collective_rpc", weights),
        ("/reset_prefix_cache", {}),
        ("/resume", {}),
    ]
    for path, body in steps:
        _post(client, path, body, TAKES_WEIGHTS, "")


def _post(
    client: Client, path: str, body: Mapping[str, Any], environment: Mapping[str, str], options: str
) -> None:
    try:
        client.openai.post(f"{client.url}{path}", body=dict(body), cast_to=str)
    except openai.APIStatusError as error:
        said = error.response.text[:400] or str(error.status_code)
        how = " ".join(
            [*(f"{name}={value}" for name, value in environment.items()), "vllm serve ...", options]
        )
        hint = f". Start it with {how.strip()}" if error.status_code in (403, 404, 405) else ""
        raise SettingError(f"engine: {client.url}{path} refuses: {said}{hint}") from error
    except openai.OpenAIError as error:
        raise SettingError(f"engine: {client.url}{path}: {type(error).__name__}: {error}") from error
