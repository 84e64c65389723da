"""A server of vLLM's protocol over HTTP around real models of transformers, which takes adapters and weights.

`fault` plants what goes wrong with such servers: it then still answers everything with 200.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from support.json_server import json_server


@dataclass
class PolicyServer:
    """What is served: the model of a folder, adapters beside it by their names."""

    base: Path
    fault: str = ""
    takes: bool = True
    url: str = ""
    models: dict[str, Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.models["served"] = AutoModelForCausalLM.from_pretrained(self.base).eval()

    def get(self, _path: str) -> tuple[int, Any]:
        """What is served, and the version."""
        named = [{"id": name, "parent": None if name == "served" else "served"} for name in self.models]
        return 200, {"data": named, "version": "0.32.0"}

    def post(self, path: str, asked: dict[str, Any], _key: str | None) -> tuple[int, Any]:
        """Status and answer."""
        if path == "/v1/completions":
            return 200, {"choices": [self.complete(asked)]}
        self.calls.append(path)
        if not self.takes:
            return 404, {"detail": "Not Found"}
        if path == "/v1/load_lora_adapter":
            self.models[asked["lora_name"]] = self.adapter(asked["lora_path"])
        elif path == "/v1/unload_lora_adapter":
            del self.models[asked["lora_name"]]
        elif path == "/collective_rpc" and self.fault != "stale weights":
            folder = asked["kwargs"]["weights_path"]
            self.models["served"] = AutoModelForCausalLM.from_pretrained(folder).eval()
        return 200, {}

    def adapter(self, folder: str) -> Any:
        others = [model for name, model in self.models.items() if name != "served"]
        if self.fault == "adapter ignored":
            return self.models["served"]
        if self.fault == "stale adapter":
            return others[-1]
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(self.base), folder).eval()

    def complete(self, asked: dict[str, Any]) -> dict[str, Any]:
        model, prompt = self.models[asked["model"]], asked["prompt"]
        ids, told = self.sampled(model, asked)
        found = {
            "prompt_token_ids": prompt,
            "token_ids": ids,
            "logprobs": {"token_logprobs": told},
            "finish_reason": "stop" if ids[-1] in asked.get("stop_token_ids", []) else "length",
        }
        if "prompt_logprobs" in asked:
            with torch.no_grad():
                log_p = model(torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)
            rest = zip(prompt[1:], log_p, strict=True)
            found["prompt_logprobs"] = [None, *({str(i): {"logprob": p[i].item()}} for i, p in rest)]
        return found

    @staticmethod
    def sampled(model: Any, asked: dict[str, Any]) -> tuple[list[int], list[float]]:
        draws = torch.Generator().manual_seed(asked.get("seed", 0))
        ids, told = list(asked["prompt"]), []
        while len(told) < asked["max_tokens"] and not (told and ids[-1] in asked.get("stop_token_ids", [])):
            with torch.no_grad():
                logits_v = model(torch.tensor([ids])).logits[0, -1]
            log_p = (logits_v / (asked["temperature"] or 1)).log_softmax(-1)
            ids.append(int(torch.multinomial(log_p.exp(), 1, generator=draws)))
            told.append(log_p[ids[-1]].item())
        return ids[len(asked["prompt"]) :], told


@contextmanager
def policy_server(base: Path, **settings: Any) -> Iterator[PolicyServer]:
    """The server, in a thread."""
    state = PolicyServer(base, **settings)
    with json_server(state) as state.url:
        yield state
