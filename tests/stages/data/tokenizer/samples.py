"""Valid configs of the tokenizer stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"base_model": "/model"},
    beside={"chat_template_jinja": {"chat_template": "jinja", "chat_template_jinja": "{{ messages }}"}},
    values={
        "tokenizer_save_jinja_files": [False],
        "base_model": ["/other"],
        "tokenizer_config": ["/other"],
        "added_tokens_overrides": [{0: "<x>"}],
        "chat_template": ["chatml", "llama3"],
        "chat_template_jinja": ["{{ other }}"],
    },
)
