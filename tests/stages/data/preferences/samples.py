"""Valid configs of the preferences stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"path": "/rows.jsonl", "type": "chatml.intel", "rl": "dpo"},
    beside={
        "rl": {"type": "chatml.intel", "rl": "dpo"},
        "reward_model": {"type": "bradley_terry.chat_template", "rl": None, "reward_model": True},
        "chat_template": {"type": "chat_template.default"},
        "chat_template_jinja": {
            "type": "chat_template.default",
            "chat_template": "jinja",
            "chat_template_jinja": "{{ messages }}",
        },
        "field_messages": {"type": "chat_template.default"},
        "field_tools": {"type": "chat_template.default"},
        "message_field_role": {"type": "chat_template.default"},
        "message_field_content": {"type": "chat_template.default"},
        "message_property_mappings": {"type": "chat_template.default"},
        "roles": {"type": "chat_template.default"},
        "drop_system_message": {"type": "chat_template.default"},
    },
    values={
        "path": ["/other.jsonl"],
        "type_code": [["/shaping.py"]],
        "chat_template": ["chatml", "llama3"],
        "chat_template_jinja": ["{{ other }}"],
    },
    refused=frozenset(["reward_model"]),
)
