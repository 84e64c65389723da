"""Activations that wait elsewhere come back bit by bit; where memory runs out, the error says what to turn."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.configs import SFT, load
from support.tiny_model import Heard, folder_bytes, make_model, random_rows, training_data, workspace
from torch import nn

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.training import loop_body
from tunemill.stages.training.machine_body import to_float8
from tunemill.stages.training.memory_body import Offloading, advice, fitting_memory, halved
from tunemill.stages.training.method import Method
from tunemill.stages.training.order_body import Sequences
from tunemill.stages.training.sequences_body import check_rows, collator_of
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

SETTINGS: dict[str, Any] = {"learning_rate": 1e-2, "max_steps": 3, "save_strategy": "no"}


def run(folder: Path, base: Path, **settings: Any) -> dict[str, bytes]:
    """The files that a training writes."""
    out = workspace(folder)
    data = training_data(folder / "rows", random_rows(8))
    sft(SftConfig(**{**SETTINGS, **settings}), Model(base), data, None, out, Heard().report)
    assert not list(out.checkpoints.iterdir()), "nothing that was kept on disk stays there"
    return folder_bytes(out.data)


def test_activations_on_disk_give_the_same_weights(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    plain = run(tmp_path / "plain", base)
    assert run(tmp_path / "disk", base, activation_offloading="disk") == plain
    assert run(tmp_path / "both", base, gradient_checkpointing="offload_disk") == plain


def test_what_is_kept_for_the_backward_pass_goes_to_disk_and_parameters_stay(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
    inputs = torch.randn(32, 64, requires_grad=True)
    expected = torch.autograd.grad(model(inputs).sum(), [inputs, *model.parameters()])
    offloading = Offloading("disk", tmp_path)
    with offloading.of(model):
        loss = model(inputs).sum()
    # The input, and what goes into and comes out of the activation.
    assert offloading.moved == len(list(tmp_path.glob("*/*.pt"))) == 3
    found = torch.autograd.grad(loss, [inputs, *model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def config(**settings: Any) -> SftConfig:
    return SftConfig(**{**SETTINGS, **settings})


def failing_above(size: int, seen: list[tuple[int, int]], error: type[Exception]) -> Callable[[Any], None]:
    """An attempt for which micro batches of more than `size` are too large."""

    def attempt(given: SftConfig) -> None:
        seen.append((given.micro_batch_size, given.gradient_accumulation_steps))
        if given.micro_batch_size > size:
            raise error("CUDA out of memory. Tried to allocate 1 GiB.\nMore text")

    return attempt


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_smaller_micro_batches_make_the_same_steps(error: type[Exception]) -> None:
    seen: list[tuple[int, int]] = []
    heard = Heard()
    given = config(micro_batch_size=12, gradient_accumulation_steps=2, auto_find_batch_size=True)
    fitting_memory(failing_above(3, seen, error), given, heard.report)
    assert seen == [(12, 2), (6, 4), (3, 8)]
    assert heard.summary == {"micro_batch_size": 3, "gradient_accumulation_steps": 8}
    first, second = (event["message"] for event in heard.of("log"))
    assert "micro_batch_size: 6 and gradient_accumulation_steps: 4" in first and "last bits" in second


def test_the_plan_says_that_the_size_is_the_machines(tmp_path: Path) -> None:
    notes = load(tmp_path, {**SFT, "auto_find_batch_size": True}).notes
    assert [note.path for note in notes if "depend on the machine's memory" in note.message] == [
        "auto_find_batch_size"
    ]
    assert not [note for note in load(tmp_path, SFT).notes if "depend on the machine" in note.message]


def test_an_odd_size_goes_to_one_that_divides_it() -> None:
    smaller = halved(config(micro_batch_size=9))
    assert smaller is not None
    assert (smaller.micro_batch_size, smaller.gradient_accumulation_steps) == (3, 3)
    assert halved(config(micro_batch_size=1)) is None


def test_without_more_memory_the_error_names_what_to_turn_in_order() -> None:
    given = config(micro_batch_size=4, gradient_accumulation_steps=2)
    with pytest.raises(UserError) as caught:
        fitting_memory(failing_above(1, [], torch.OutOfMemoryError), given, Heard().report)
    text = str(caught.value)
    assert text.startswith(
        "memory ran out: CUDA out of memory. Tried to allocate 1 GiB. Turn, in this order: 1. "
    )
    knobs = [
        "micro_batch_size: 2 with gradient_accumulation_steps: 4",
        "gradient_checkpointing: true",
        "chunked_cross_entropy: true",
        "bf16: true",
        "optimizer: adafactor",
        "sequence_len",
        "adapter: lora",
    ]
    places = [text.index(knob) for knob in knobs]
    assert places == sorted(places)


def test_what_is_turned_already_is_not_named() -> None:
    text = advice(
        config(gradient_checkpointing=True, chunked_cross_entropy=True, bf16=True, optimizer="adafactor")
    )
    assert "1. activation_offloading: true; 2. a smaller sequence_len" in text
    for knob in ("micro_batch_size", "gradient_checkpointing: true", "chunked", "bf16", "adafactor"):
        assert knob not in text


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="mat1"):
        fitting_memory(lambda _: torch.zeros(2, 3) @ torch.zeros(2, 3), config(), Heard().report)  # type: ignore[arg-type, return-value]


@pytest.mark.slow
def test_a_training_that_runs_out_of_memory_goes_on_with_smaller_batches(tmp_path: Path) -> None:
    base, rows = make_model(tmp_path / "base"), random_rows(8)
    found: dict[bool, dict[str, torch.Tensor]] = {}
    sizes: list[int] = []
    for small in (False, True):
        out, heard = workspace(tmp_path / str(small)), Heard()
        data = training_data(tmp_path / "rows", rows)
        given = config(micro_batch_size=4, auto_find_batch_size=True)

        def limited(model: Any, given: SftConfig = given, small: bool = small, heard: Heard = heard) -> Any:
            collate = collator_of(given, heard.report, model)

            def of(examples: Any) -> Any:
                sizes.append(len(examples))
                if small and len(examples) > 2:
                    raise torch.OutOfMemoryError("out of memory")
                return collate(examples)

            of.layout = collate.layout  # type: ignore[attr-defined]
            return of

        sequences = Sequences(data.rows, data.packs, 42)
        method = Method(sequences, limited, partial(check_rows, given, sequences, None, heard.report))
        loop_body.train(given, Model(base), method, out, heard.report)
        assert heard.summary["micro_batch_size"] == (2 if small else 4)
        found[small] = load_file(out.data / "model.safetensors")
    for name, tensor in found[False].items():
        torch.testing.assert_close(found[True][name], tensor, rtol=1e-3, atol=1e-4)


def test_float8_computes_nearly_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(32, 32) for _ in range(4)))
    inputs = torch.randn(16, 32)
    before = model(inputs)
    to_float8(model, emulates=True)
    assert [type(module).__name__ for module in model] == ["Linear", "Float8Linear", "Float8Linear", "Linear"]
    error = (model(inputs) - before).norm() / before.norm()
    assert 0 < error < 0.1
    model(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_float8_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="multiples of 16"):
        to_float8(nn.Sequential(*(nn.Linear(6, 6) for _ in range(4))), emulates=True)
