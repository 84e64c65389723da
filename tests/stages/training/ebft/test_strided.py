"""Blocks inside of documents: the first step against values that are computed here, block by block."""

import json
import shutil

import pyarrow as pa
import pytest
import torch
from support.online import trained_on_answers
from support.tiny_model import Heard, make_model
from torch.nn.functional import cosine_similarity, normalize
from transformers import AutoModelForCausalLM

from tunemill.stages.data.rows.prompt_rows import OF_ALL, PromptRows
from tunemill.stages.errors import RowError, SettingError, UserError
from tunemill.stages.models.words_body import load_words
from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.ebft.documents_body import document_of, documents_of
from tunemill.stages.training.ebft.strided_body import check_masked
from tunemill.stages.training.online.journal import Journal

CONTEXT, BLOCK, STRIDE, SAMPLES, TEMPERATURE = 2, 2, 2, 3, 0.8
KEYS = {
    "mode": "strided", "stride": STRIDE, "context_length": CONTEXT, "generate_max_len": BLOCK,
    "n_samples_per_prompt": SAMPLES, "strided_temperature": TEMPERATURE, "feature_layers": [0.5, 1.0],
    "embed_method": "mean_pooling", "diversity_coef": 0.5, "ce_coef": 0.25, "rl_coef": 2.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("strided") / "base")


def config_of(**keys):
    return EbftConfig(
        learning_rate=0.1, micro_batch_size=2, gradient_accumulation_steps=1, **{**KEYS, **keys}
    )


def one_block(model, document, start, block):
    """What a model makes of a document with one block: logits that predict it, and its states; the mask by hand."""
    length = len(document)
    total = length + len(block)
    mask = torch.zeros(total, total, dtype=torch.bool)
    for row in range(length):
        mask[row, : row + 1] = True
    for number in range(len(block)):
        mask[length + number, start - CONTEXT : start] = True
        mask[length + number, length : length + number + 1] = True
    made = model(
        input_ids=torch.tensor([[*document, *block]]),
        attention_mask=mask[None, None],
        position_ids=torch.tensor([[*range(length), *range(start, start + len(block))]]),
        output_hidden_states=True,
    )
    predicting = [start - 1, *range(length, total - 1)]
    states = torch.cat([normalize(made.hidden_states[layer][0, length:], dim=-1) for layer in (1, 2)], dim=-1)
    return made.logits[0, predicting], states.mean(0)


def test_loss_and_rewards_of_the_first_step_are_those_by_hand(base, tmp_path):
    heard = Heard()
    words = ["abcde", "edcba", "bcdea", "cdeab"]
    trained_on_answers(
        tmp_path / "run", base, words, heard.report, max_steps=2, micro_batch_size=1, gradient_accumulation_steps=2,
        **KEYS,
    )  # fmt: skip
    journal = Journal(tmp_path / "run" / "checkpoints" / "journal")
    rows = PromptRows(tmp_path / "run-prompts" / "rows.arrow")
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = load_words(base)
    policy, tokens, surprise, learned, rewards, first = 0.0, 0, 0.0, 0, [], 0
    for row in (0, 1):
        prompt = rows[row].ids
        answer = tokenizer(rows[row].columns["ground_truth"], add_special_tokens=False)["input_ids"]
        document = [*prompt, *answer]
        starts = range(len(prompt), len(document) - BLOCK + 1, STRIDE)
        rollouts = journal.rollouts(0, first)
        first += len(starts)
        assert len(rollouts) == len(starts) * SAMPLES and len(starts) > 1
        for place, start in enumerate(starts):
            group = rollouts[place * SAMPLES : (place + 1) * SAMPLES]
            assert {tuple(one.prompt_ids) for one in group} == {tuple(document[start - CONTEXT : start])}
            made = [one_block(model, document, start, one.completion.ids) for one in group]
            with torch.no_grad():
                wanted = one_block(model, document, start, document[start : start + BLOCK])[1]
            features = normalize(torch.stack([one[1] for one in made]).detach(), dim=-1)
            among = ((features @ features.T).sum(-1) - 1) / (SAMPLES - 1)
            reward = 2 * cosine_similarity(features, wanted[None]) - 2 * 0.5 * among
            rewards += reward.tolist()
            for number, (one, (logits, _)) in enumerate(zip(group, made, strict=True)):
                log_p = (
                    (logits / TEMPERATURE)
                    .log_softmax(-1)
                    .gather(-1, torch.tensor(one.completion.ids)[:, None])
                )
                assert log_p.flatten().tolist() == pytest.approx(one.completion.log_p, abs=1e-4)
                others = (reward.sum() - reward[number]) / (SAMPLES - 1)
                policy = policy - (reward[number] - others) * log_p.sum()
                tokens += BLOCK
        log_p = model(input_ids=torch.tensor([document])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
        surprise = surprise - log_p.gather(-1, torch.tensor(answer)[:, None]).sum()
        learned += len(answer)
    assert heard.steps("reward")[1] == pytest.approx(sum(rewards) / len(rewards), abs=1e-5)
    loss = 2.0 * policy / tokens + 0.25 * surprise / learned
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert heard.steps("loss")[1] == pytest.approx(float(loss.detach()), abs=1e-4)
    assert heard.steps("grad_norm")[1] == pytest.approx(float(norm), rel=1e-3)
    assert heard.steps("ce_loss")[1] == pytest.approx(float(surprise.detach()) / learned, abs=1e-5)
    kept = (
        pa.ipc.open_file(pa.memory_map(str(tmp_path / "run" / "logs" / "rollouts.arrow")))
        .read_all()
        .to_pylist()
    )
    by_group = {(one["round"], one["group"]) for one in kept}
    assert len(kept) == SAMPLES * len(by_group) and heard.summary["strayed"] == 0


def test_where_blocks_begin():
    config = config_of(min_completion_prefix=1, context_length=3, sequence_len=12)
    asked = document_of(config, 0, range(5), range(100, 120), asks=True)
    assert len(asked.ids) == 12 and asked.answer == 5 and asked.starts == (6, 8, 10)
    assert asked.own_blocks == [(101, 102), (103, 104), (105, 106)]
    text = document_of(config, 0, [1], range(100, 120), asks=False)
    assert text.answer == 1 and text.starts == (3, 5, 7, 9)
    assert text.positions[12:].tolist() == [3, 4, 5, 6, 7, 8, 9, 10]
    assert text.predicting.tolist() == [[2, 12], [4, 14], [6, 16], [8, 18]]


def test_documents_without_room_are_left_out_and_told(tmp_path):
    file = tmp_path / "rows.arrow"
    row = {"dataset": 1, "prompt_ids": [1], "columns": "{}"}
    made = [
        {**row, "source_row": number, "prompt": json.dumps(text)} for number, text in enumerate(["", "x"])
    ]
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, OF_ALL) as writer:
        writer.write_table(pa.Table.from_pylist(made, schema=OF_ALL))
    found, without = documents_of(config_of(), PromptRows(file), [range(9), range(1)])
    assert [one.row for one in found] == [0] and without == 1
    with pytest.raises(RowError, match="no document has room"):
        documents_of(config_of(), PromptRows(file), [range(1), range(1)])


def test_a_model_that_attends_by_its_mask_is_taken(base):
    model = AutoModelForCausalLM.from_pretrained(base)
    document = document_of(config_of(), 0, [5, 6, 7], [8, 9, 10, 11, 12], asks=True)
    check_masked(document, model)


class Sees(torch.nn.Module):
    """A model that does not look at the mask that it is given, as one with convolutions or a state does not."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids, attention_mask=None, **others):  # noqa: ARG002 - that is its fault
        return self.model(input_ids, **others)


@pytest.mark.parametrize("answer", [[8, 9, 10, 11, 12], [8, 8, 8, 8, 8]])
def test_a_model_that_sees_other_blocks_is_refused(base, answer):
    document = document_of(config_of(), 0, [5, 6, 7], answer, asks=True)
    assert len(document.starts) > 1
    with pytest.raises(SettingError, match=r"Sees does not attend by a mask alone.*ebft\.mode: structured"):
        check_masked(document, Sees(AutoModelForCausalLM.from_pretrained(base)))


def test_features_that_are_no_numbers_end_it(base, tmp_path):
    broken = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    shutil.copytree(base, broken)
    model.save_pretrained(broken)
    with pytest.raises(UserError, match=r"round 1: the frozen model's features .* no finite numbers"):
        trained_on_answers(
            tmp_path / "run",
            broken,
            ["abcde", "edcba"],
            Heard().report,
            max_steps=1,
            micro_batch_size=1,
            **KEYS,
        )
