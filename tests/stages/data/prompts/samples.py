"""Valid configs of the prompts stage, for the tests of keys."""

from support.samples import Samples

SAMPLES = Samples(
    smallest={"path": "/rows.jsonl"},
    beside={
        "type": {"type": None},
        "type_code": {"type": "shaping.prompts", "type_code": ["/shaping.py"]},
        "field_messages": {"type": "chat_template"},
    },
    values={"path": ["/other.jsonl"], "type": ["chat_template"], "type_code": [["/shaping.py", "/more.py"]]},
)
