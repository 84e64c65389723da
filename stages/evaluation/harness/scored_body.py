"""Scores one model on tasks of lm-evaluation-harness, and keeps what it did on each row."""

import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from transformers import GenerationConfig

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.evaluation.harness.keys import HarnessConfig
from tunemill.stages.evaluation.harness.samples import metrics_of, not_finite, predictions_of
from tunemill.stages.evaluation.harness.tasks_body import Loaded, load_tasks, mean_metrics, set_up
from tunemill.stages.evaluation.harness.told_rows_body import tell_rows
from tunemill.stages.evaluation.loading_body import load_scored
from tunemill.stages.evaluation.written import Mean, write_scores
from tunemill.stages.evaluation.wrong_answers import show_wrong
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Workspace

# The seeds of lm_eval's own command: of Python's random, and of everything else.
SEED_OF_PYTHON, SEED = 0, 1234


def evaluate(
    config: HarnessConfig, model: Model | None, adapter: Adapter | None, out: Workspace, report: Report
) -> None:
    """Write metrics.json, intervals.json and predictions.jsonl. Raises UserError for tasks that cannot be run."""
    be_quiet()
    settings = config.lm_eval
    seed = SEED if settings.seed is None else settings.seed
    random.seed(SEED_OF_PYTHON if settings.seed is None else seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if model is None:
        assert config.lm_eval_model is not None, "the graph gives a model where the YAML names none"
        model = Model(Path(config.lm_eval_model))
    with tempfile.TemporaryDirectory(dir=out.checkpoints) as cache:
        tasks = load_tasks(config.lm_eval_tasks, Path(cache))
        set_up(tasks, settings, seed)
        tell_rows(tasks)
        results = _run(_language_model(config, model, adapter), tasks, config)
    means = {name: mean_metrics(task) for name, task in tasks.tasks.items()}
    predictions = list(predictions_of(results["samples"], means))
    metrics = metrics_of(results["results"])
    if lost := not_finite(results["results"]):
        report.log(
            f"warning: {', '.join(lost)}: no finite number came out, so it is no figure here and no gate passes by it"
        )
    fields = dict.fromkeys(name for row in predictions for name in row if name in metrics)
    write_scores(metrics, predictions, {name: Mean(name) for name in fields}, out.data, report)
    show_wrong(predictions, list(fields), report)


def _language_model(config: HarnessConfig, model: Model, adapter: Adapter | None) -> Any:
    use_code_of(model.path)
    loaded = load_scored(model, adapter)
    plain = loaded if adapter is None else loaded.get_base_model()
    # generate() fills gaps from the model's own settings: sampling or penalties there would leak into greedy search.
    ends = plain.generation_config.eos_token_id
    for one in (plain, loaded):
        one.generation_config = GenerationConfig(eos_token_id=ends)
    words = load_words((adapter or model).path)
    if config.lm_eval.chat_template and not words.chat_template:
        raise SettingError("pipeline.lm_eval.chat_template: the model has no chat template. Set it to false")
    return HFLM(pretrained=loaded, tokenizer=words, batch_size=config.lm_eval_batch_size)


def _run(model: Any, tasks: Loaded, config: HarnessConfig) -> Any:
    unsafe = sorted(name for name, task in tasks.tasks.items() if getattr(task, "UNSAFE_CODE", False))
    if unsafe:
        raise UserError(
            f"lm_eval_tasks: {unsafe[0]} runs code that the model has written, which nothing here keeps from harm. "
            f"Take it out"
        )
    settings = config.lm_eval
    return evaluator.evaluate(
        lm=model,
        task_dict={"tasks": tasks.tasks, "groups": tasks.groups},
        limit=settings.limit,
        bootstrap_iters=0,
        log_samples=True,
        system_instruction=settings.system_prompt,
        apply_chat_template=settings.chat_template,
        fewshot_as_multiturn=settings.chat_template,
    )
