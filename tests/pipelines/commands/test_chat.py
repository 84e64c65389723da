"""A conversation in the terminal: what becomes of what is typed."""

from tunemill.pipelines.commands.chat import HELP, Conversation, talk


def played(conversation, *lines, fails=()):
    """What was shown, and what each model was asked, when these lines are typed."""
    waiting, shown, asked = list(lines), [], []

    def read(_):
        if not waiting:
            raise EOFError
        line = waiting.pop(0)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return line

    def answer(model, said):
        asked.append((model, said if isinstance(said, str) else [dict(message) for message in said]))
        text = said if isinstance(said, str) else said[-1]["content"]
        return None if text in fails else f"{model}: {text}"

    talk(conversation, read, shown.append, answer)
    return shown, asked


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_each_model_hears_its_own_answers():
    _, asked = played(Conversation(["new", "base"]), "one", "two")
    assert asked == [
        ("new", [user("one")]),
        ("base", [user("one")]),
        ("new", [user("one"), assistant("new: one"), user("two")]),
        ("base", [user("one"), assistant("base: one"), user("two")]),
    ]


def test_a_system_prompt_stands_before_everything_and_stays():
    shown, asked = played(
        Conversation(["m"]), "one", "/system be brief", "/reset", "two", "/system", "/system -"
    )
    assert asked[-1] == ("m", [{"role": "system", "content": "be brief"}, user("two")])
    assert shown == ["system: be brief", "forgotten", "system: be brief", "no system prompt"]


def test_what_could_not_be_answered_was_not_said():
    _, asked = played(Conversation(["m"]), "bad", "good", fails=["bad"])
    assert asked[-1] == ("m", [user("good")])


def test_texts_of_several_lines():
    _, asked = played(Conversation(["m"]), "a\\", "b", '"""', "c", "", 'd"""', '"""e"""', "", "  ")
    assert [said[-1]["content"] for _, said in asked] == ["a\nb", "c\n\nd", "e"]


def test_commands_and_messages_that_look_like_some():
    shown, asked = played(Conversation(["m"]), "/help", "/quit", "//quit")
    assert shown[0] == HELP and "there is no /quit" in shown[1]
    assert [said[-1]["content"] for _, said in asked] == ["/quit"]


def test_ctrl_c_at_the_prompt_does_not_leave():
    shown, asked = played(Conversation(["m"]), KeyboardInterrupt, "still here")
    assert "Ctrl-D" in shown[0] and len(asked) == 1


def test_without_a_template_each_text_is_by_itself():
    shown, asked = played(Conversation(["m"], templated=False), "one", "two", "/system x")
    assert asked == [("m", "one"), ("m", "two")] and "without a chat template" in shown[0]
