"""Scripts of what is trained on, with `data_report: full`."""

import pytest

from tunemill.stages.data.tokenized.scripts import script_of_text


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Paris is the capital of France.", "latin"),
        ("Übergrößenträger, où ça?", "latin"),
        ("Столица Франции - Париж", "cyrillic"),
        ("法国的首都是巴黎这是一个句子", "han"),
        ("フランスの首都はパリです", "japanese"),
        ("프랑스의 수도는 파리입니다", "hangul"),
        ("عاصمة فرنسا هي باريس", "arabic"),
        ("12 + 30 = 42", "few letters"),
        ("", "few letters"),
    ],
)
def test_the_script_of_a_text(text, script):
    assert script_of_text(text) == script


def test_rows_in_another_script_are_counted_by_what_is_trained_on(tokenize):
    def row(question, answer):
        return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}

    rows = [row("Что это такое?", "The capital of France")] * 3 + [row("What is it?", "Столица Франции")]
    rows.append(row("What?", "4"))
    dataset, events = tokenize(rows, data_report="full")
    tables = {table["title"]: table["rows"] for table in events.of_type("table")}
    assert tables["Scripts of what is trained on"] == [
        ["latin", 3, 0.6], ["cyrillic", 1, 0.2], ["few letters", 1, 0.2],
    ]  # fmt: skip
    assert events.summary["rows_of_other_scripts"] == 1
    assert ["rows in another script than most", 1, 4, 0.25] in tables["Quality"]
    cheap, events = tokenize(rows)
    assert "Scripts of what is trained on" not in {table["title"] for table in events.of_type("table")}
    assert cheap.rows.read_bytes() == dataset.rows.read_bytes()
