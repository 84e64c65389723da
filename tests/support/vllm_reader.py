"""Run by an interpreter that has vLLM: what it makes of model folders. `vllm_reader.py ASKED.json TOLD.json`.

Asked: {"prompts": [[ids]], "folders": {name: folder}, "dtypes": {name: type}, "longest"}; told: name -> for each prompt
[[id, log-probability]].
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# Without it a thread for each core waits by spinning.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


def main() -> None:
    """Load each folder, and let it go on from each prompt with the likeliest token."""
    from vllm import LLM, SamplingParams

    asked = json.loads(Path(sys.argv[1]).read_text())
    told = {}
    for name, folder in asked["folders"].items():
        engine = LLM(
            model=folder,
            dtype=asked["dtypes"][name],
            enforce_eager=True,
            max_model_len=128,
            max_num_seqs=8,
            seed=0,
        )
        settings = SamplingParams(temperature=0, max_tokens=asked["longest"], logprobs=1, ignore_eos=True)
        prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
        told[name] = [
            [
                (token, found[token].logprob)
                for token, found in zip(answer.outputs[0].token_ids, answer.outputs[0].logprobs, strict=True)
            ]
            for answer in engine.generate(prompts, settings)
        ]
        del engine
    Path(sys.argv[2]).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
