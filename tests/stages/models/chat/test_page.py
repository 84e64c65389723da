"""The page: what a browser would say to it is answered as on the terminal."""

import subprocess
import sys

import pytest

from tunemill.pipelines.cli import main

PAGE = """
import sys
from pathlib import Path
import gradio
from gradio_client import Client
from tunemill.stages.models.chat.page_body import make_page, talk_with
from tunemill.stages.models.chat.sampling import Sampling
from tunemill.stages.models.chat.speaker_body import answer, load_speaker, prompt_of

sampling = Sampling(max_new_tokens=12)
speakers = {name: load_speaker(Path(folder)) for name, folder in zip(("new", "base"), sys.argv[1:])}
try:
    list(talk_with(speakers, False, sampling, None)("", []))
except gradio.Error as error:
    assert "write something" in error.message and not error.print_exception
else:
    raise AssertionError("nothing was said")
page = make_page(speakers, True, sampling, "sum", "Title of the page")
_, address, _ = page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
for name, speaker in speakers.items():
    # One that has heard nothing yet.
    client = Client(address, verbose=False)
    said = client.predict("2 + 2", name, api_name="/chat")
    messages = [{"role": "system", "content": "sum"}, {"role": "user", "content": "2 + 2"}]
    expected = answer(speaker, prompt_of(speaker, messages), sampling, lambda _: None).text
    assert said == expected, (name, said, expected)
assert client.config["title"] == "Title of the page"
print("answered")
"""


@pytest.mark.slow
def test_a_page_answers(finished_project):
    pytest.importorskip("gradio")
    plan = finished_project.plan()
    folders = [str(plan[name].cached.data) for name in ("merged", "base_model")]
    done = subprocess.run([sys.executable, "-c", PAGE, *folders], capture_output=True, text=True, timeout=200)
    assert done.stdout.splitlines()[-1:] == ["answered"], done.stdout + done.stderr


def test_a_page_and_a_file_are_two_things(finished_project, capsys):
    call = ["inference", str(finished_project.yaml), "--gradio", "--prompts", "x", "--state"]
    assert main([*call, str(finished_project.state)]) == 1
    assert "Take one" in capsys.readouterr().err
