"""Valid configs of the tokenized stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"path": "/rows.jsonl", "type": "chat_template"},
    beside={
        "field": {"type": "completion"},
        "conversation": {"type": "alpaca_chat"},
        "step_separator": {"type": "stepwise_supervised"},
        "max_completion_length": {"type": "stepwise_supervised"},
        "train_on_last_step_only": {"type": "stepwise_supervised"},
        "chat_template_jinja": {"chat_template": "jinja", "chat_template_jinja": "{{ messages }}"},
    },
    values={
        "path": ["/other.jsonl"],
        "type_code": [["/shaping.py"]],
        "chat_template": ["chatml", "llama3"],
        "tokenizer_use_mistral_common": [True],
        "chat_template_jinja": ["{{ other }}"],
    },
    refused=frozenset(["field_human", "field_model"]),
)
