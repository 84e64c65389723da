"""`published`: a model's folder with card, bill of materials and signature goes where it is asked for, once."""

import hashlib
import json
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.hub import hub_server
from support.project import chat_row, make_project
from support.tiny_model import make_model

from tunemill.pipelines.cli import main
from tunemill.pipelines.commands.verify import fault_of
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.lineage import read_lineage
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.public_lineage import public_lineage
from tunemill.pipelines.graph.told_places import Machine, told
from tunemill.resources.errors import StoreError
from tunemill.resources.identity import StatCache
from tunemill.resources.protocols import (
    AS_PUBLISHED,
    BOM_FILE,
    CARD,
    LINEAGE_FILE,
    SIGNATURE_FILE,
    SIGNING,
    licence_in,
)
from tunemill.resources.targets import Content, TargetFolder

NAME, TOKEN = "team/dates", "hf_who_may_write"


@pytest.fixture
def hub():
    with hub_server() as server:
        server.writers.add(TOKEN)
        yield server


def publish(project, **settings):
    """Bring the node up to date, with the same settings each time; what became of it, and what was said."""
    project.edit(pipeline={"publish": {"of": "merged", **settings}})
    said = []
    finished = project.run(only={"published"}, observe=lambda _, event: said.append(event.get("message", "")))
    return finished["published"], [line for line in said if line]


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    for package in SIGNING:
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        private, public = folder / f"{name}.pem", folder / f"{name}.pub"
        made = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private)]
        subprocess.run(made, check=True, capture_output=True)
        subprocess.run(
            ["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)],
            check=True,
            capture_output=True,
        )
    return folder


def test_a_folder_gets_the_model_and_all_that_is_told_of_it(project, keys, capsys):
    node, said = publish(project, to="./given/dates", license="mit", sign=str(keys / "mine.pem"))
    assert node.state == "computed", node
    folder = project.folder / "given" / "dates"
    assert any(f"published: {folder}, " in line for line in said), said
    names = {path.name for path in folder.iterdir()}
    assert names >= {CARD, BOM_FILE, LINEAGE_FILE, SIGNATURE_FILE, "model.safetensors", "training_loss.svg"}
    # The card: its head is what the Hub reads.
    _, head, text = (folder / CARD).read_text().split("---\n", 2)
    assert yaml.safe_load(head) == {
        "license": "mit", "library_name": "transformers", "tags": ["tunemill", "sft"],
    }  # fmt: skip
    sums = hashlib.sha256((project.folder / "data" / "sums.jsonl").read_bytes()).hexdigest()
    assert (
        "# dates\n" in text
        and f"| dataset_sums | training | 20 | sums.jsonl | unknown | sha256 {sums} |" in text
    ), text
    assert "evaluation_of_merged | exact_match" in text and "evaluation_of_base" in text
    assert "| trained | sft | learning_rate | 0.001 |" in text and "tunemill reproduce ." in text
    # The bill of materials: the schema of the standard, and every dataset with its hash.
    bom = (folder / BOM_FILE).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom) is None
    data = {item["name"]: item for item in json.loads(bom)["components"] if item["type"] == "data"}
    assert data.keys() == {"sums.jsonl", "echoes.jsonl", "held_out.jsonl"}
    assert "| dataset_held_out | scoring | 4 | held_out.jsonl | unknown |" in text
    assert data["sums.jsonl"]["hashes"] == [{"alg": "SHA-256", "content": sums}]
    libraries = {item["name"] for item in json.loads(bom)["components"] if item["type"] == "library"}
    assert libraries >= {"torch", "transformers", "peft"}
    # The signature: one flipped byte, another key or a file more is refused.
    verify = ["verify", str(folder), "--key"]
    assert main([*verify, str(keys / "mine.pub")]) == 0
    assert main([*verify, str(keys / "other.pub")]) == 1
    weights = folder / "model.safetensors"
    flip_last_byte(weights)
    capsys.readouterr()
    assert main([*verify, str(keys / "mine.pub")]) == 1
    assert "model.safetensors" in capsys.readouterr().out
    # It is seen, and sent again; and nothing else.
    node, said = publish(project, to="./given/dates", license="mit", sign=str(keys / "mine.pem"))
    assert node.state == "cached" and any(f"published: {folder}, 2 files sent" in line for line in said), said
    assert main([*verify, str(keys / "mine.pub")]) == 0
    # Every file is under it, and none may be added or taken away, whatever it is called.
    for name in sorted({path.name for path in folder.iterdir()}):
        before = (folder / name).read_bytes()
        flip_last_byte(folder / name)
        assert fault_of(folder, keys / "mine.pub") is not None, name
        (folder / name).unlink()
        assert name == SIGNATURE_FILE or fault_of(folder, keys / "mine.pub") is not None, name
        (folder / name).write_bytes(before)
    assert fault_of(folder, keys / "mine.pub") is None
    for name in ("more.py", ".cache/more.py", ".gitignore", ".github/more.yml", "more/tunemill_lineage.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("import os\n")
        assert fault_of(folder, keys / "mine.pub") is not None, name
        (folder / name).unlink()
    # What a download leaves is none of it.
    (folder / ".cache" / "huggingface").mkdir()
    (folder / ".cache" / "huggingface" / "x.lock").write_text("")
    assert fault_of(folder, keys / "mine.pub") is None


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_what_is_published_says_nothing_of_this_machine(project, finished_project):
    publish(project, to="./given/dates")
    folder = project.folder / "given" / "dates"
    for path in folder.iterdir():
        text = path.read_bytes().decode(errors="replace")
        for place in (project.folder, finished_project.folder, project.folder.parent):
            assert str(place) not in text, path
    lineage = json.loads((folder / LINEAGE_FILE).read_text())
    assert all("host" not in item for item in (lineage, *lineage["ancestors"].values()))
    # With the data it can be made again all the same: the folder is what its lineage says, and every source is found.
    (project.folder / "data" / "sums.jsonl").write_text("{}\n")
    code = main(["reproduce", str(folder), "--files", str(project.folder)])
    assert code == 1


STRANGE = "Zoë's own box"


@pytest.mark.slow
def test_no_place_that_a_training_has_seen_is_published(tmp_path, monkeypatch, keys):
    project = make_project(tmp_path / STRANGE / "project")
    elsewhere = tmp_path / STRANGE / "of others"
    elsewhere.mkdir()
    (project.folder / "data" / "sums.jsonl").rename(elsewhere / "sums.jsonl")
    settings = {
        "datasets": [
            {"path": str(elsewhere / "sums.jsonl"), "type": "chat_template"},
            {"path": "../project/data/echoes.jsonl", "type": "chat_template"},
        ],
        "test_datasets": [{"path": str(project.folder / "data" / "held_out.jsonl"), "type": "chat_template"}],
        "output_dir": str(elsewhere / "outputs"),
        "base_model": str(project.folder / "model"),
    }
    project.edit(**settings)
    library = next(Path("/lib").glob("*-linux-gnu/libm.so.6"))
    (tmp_path / "libm.so").symlink_to(library)
    monkeypatch.setenv("LD_PRELOAD", f"{tmp_path / 'libm.so'}:{library}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")
    seen = (STRANGE, "of others", str(tmp_path), socket.gethostname(), "8932f937", tmp_path.parent.name)
    for of in ("trained", "merged", "quantized"):
        project.edit(pipeline={"publish": {"of": of, "to": f"./given/{of}", "sign": str(keys / "mine.pem")}})
        finished = project.run(only={"published"})
        assert finished["published"].state == "computed", finished["published"]
        files = [path for path in (project.folder / "given" / of).rglob("*") if path.is_file()]
        assert len(files) > 5
        for path in files:
            text = path.read_bytes().decode(errors="replace")
            for place in seen:
                assert place not in text and json.dumps(place)[1:-1] not in text, (path, place)
    lineage = json.loads((project.folder / "given" / "merged" / LINEAGE_FILE).read_text())
    assert "LD_PRELOAD" in json.dumps(lineage) and '"libm.so:libm.so.6"' in json.dumps(lineage)


def test_places_are_told_by_their_ends_and_other_texts_are_left_alone(tmp_path):
    folder = tmp_path / "box" / "project"
    machine = Machine(folder, (Path("/home/zoe"),), ("gpu-7",))
    for given, shown in {
        str(folder / "data" / "x.jsonl"): "/data/x.jsonl",
        str(folder): "/project",
        "/mnt/of zoe/x.jsonl": "/x.jsonl",
        "~/x/ds.json": "ds.json",
        "../ds.json": "ds.json",
        "/mnt/Zoë's own (box)/x.jsonl": "/x.jsonl",
        "file:///mnt/zoe/x.jsonl": "/x.jsonl",
        f"see {folder}/notes/a.txt, please": "see /notes/a.txt, please",
        f"a:{folder}/b:/home/zoe/c": "a:/b:/c",
        "http://gpu-7:8000/v1": "http://localhost:8000/v1",
        "http://me@gpu-7.lan/v1": "http://me@localhost.lan/v1",
        "gpu-7": "localhost",
    }.items():
        assert told({given: [given]}, machine) == {shown: [shown]}, given
    for text in (
        "</s>", "/think", "{{ '<|im_end|>' }}", r"/\w+/", "data/sums.jsonl", "s3://bucket/a/b.jsonl", "https://x.org/a/b",
        "of gpu-7 and more", "/think /no_think", "either/or", "and/or\n/a/b",
    ):  # fmt: skip
        assert told(text, machine) == text
    apart = machine.knowing(["/a/x.jsonl", "/b/x.jsonl", str(folder / "y")])
    assert [apart.names[name] for name in ("/a/x.jsonl", "/b/x.jsonl")] == ["/x.jsonl", "/2/x.jsonl"]


def test_a_path_that_the_yaml_spells_out_is_shortened_wherever_it_stands(finished_project):
    ref = finished_project.store.ref("pipeline", "merged")
    lineage = read_lineage(finished_project.store.folder(ref.stage, ref.key))
    whole = json.dumps(str(finished_project.folder / "data" / "sums.jsonl"))
    text = json.dumps({"ancestors": {**lineage.pop("ancestors"), ref.key: lineage}})
    assert text.count('"data/sums.jsonl"') > 1
    found = json.loads(text.replace('"data/sums.jsonl"', whole))
    told = json.dumps(
        public_lineage({**found["ancestors"][ref.key], **found}, ref.key, finished_project.folder)
    )
    assert str(finished_project.folder) not in told and told.count('"/data/sums.jsonl"') > 3


@pytest.mark.slow
def test_it_is_made_the_same_again(project):
    first, _ = publish(project, to="./given/dates")
    (project.folder / "given" / "dates" / CARD).write_text("edited by hand\n")
    again, said = publish(project, to="./given/dates")
    assert again.state == "cached" and any("nothing was sent" in line for line in said)
    refreshed = project.run(only={"published"}, refresh={"published"})["published"]
    assert refreshed.state == "computed" and refreshed.published.digest == first.published.digest
    # Elsewhere it is the same artifact, under another title another one.
    moved, _ = publish(project, to="./elsewhere/dates")
    assert moved.state == "cached" and (project.folder / "elsewhere" / "dates" / CARD).exists()
    named, _ = publish(project, to="./elsewhere/days")
    assert named.state == "computed" and named.published.digest != first.published.digest


def tunemill(hub, project, *more, code=0, **environment):
    arguments = ("run", str(project.yaml), "--only", "published", *more, "--state", str(project.state))
    done = hub.tunemill(project.folder, *arguments, **environment)
    assert done.returncode == code, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return done.stderr


@pytest.mark.slow
def test_the_hub_gets_it_once_in_one_commit_and_goes_on_where_it_was_cut(project, hub):
    project.edit(hub_model_id=NAME, hub_strategy="every_save", pipeline={"publish": {"of": "merged"}})
    said = tunemill(hub, project, code=1)
    assert "without a token that may write" in said and NAME not in hub.models
    hub.uploads_until_it_fails = 0
    said = tunemill(hub, project, code=1, HF_TOKEN=TOKEN)
    assert "could not be published" in said, said
    hub.uploads_until_it_fails = None
    said = tunemill(hub, project, HF_TOKEN=TOKEN)
    repository = hub.models[NAME]
    commit = repository.revisions["main"]
    assert repository.token == TOKEN and f"{NAME} at commit {commit}" in said, said
    files = repository.commits[commit]
    assert {CARD, BOM_FILE, LINEAGE_FILE, "model.safetensors"} <= files.keys()
    sent = len(hub.uploads)
    # It is there: no commit, no upload.
    assert "nothing was sent" in tunemill(hub, project, HF_TOKEN=TOKEN)
    assert repository.revisions["main"] == commit and len(hub.uploads) == sent
    # Somebody has taken a file away, and edited the card: the file comes back, and the card stays.
    left = {name: data for name, data in files.items() if name != "config.json"}
    repository.commit({**left, CARD: b"by hand"})
    tunemill(hub, project, HF_TOKEN=TOKEN)
    files = repository.commits[repository.revisions["main"]]
    assert "config.json" in files and files[CARD] == b"by hand" and len(hub.uploads) == sent
    # On another branch, and what is public is refused where private was asked for.
    project.edit(hub_revision="v2")
    assert "at commit" in tunemill(hub, project, HF_TOKEN=TOKEN) and "v2" in repository.revisions
    repository.token = None
    project.edit(pipeline={"publish": {"of": "merged", "private": True}})
    assert "is public on the Hub" in tunemill(hub, project, code=1, HF_TOKEN=TOKEN)
    for path in (item for item in project.state.rglob("*") if item.is_file()):
        assert TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_licences_are_those_of_the_cards_on_the_hub(tmp_path, hub):
    model = {path.name: path.read_bytes() for path in make_model(tmp_path / "model").iterdir()}
    rows = "".join(chat_row(f"{a} + {b}", str(a + b)) for a in range(4) for b in range(4)).encode()
    heads = {
        "team/base": "license: apache-2.0",
        "team/sums": "license: [mit, cc-by-4.0]",
        "team/others": "tags: [a]",
    }
    cards = {name: f"---\n{head}\n---\n# It\n".encode() for name, head in heads.items()}
    hub.model("team/base").commit({**model, CARD: cards["team/base"]})
    for name in ("team/sums", "team/others"):
        hub.repository(name).commit({"rows.jsonl": rows, CARD: cards[name]})
        rows = rows[: len(rows) // 2].rpartition(b"\n")[0]
    project = make_project(
        tmp_path / "project", base_model="team/base", reinit_weights=None, quantization=None, test_datasets=None,
        datasets=[{"path": name, "type": "chat_template"} for name in ("team/sums", "team/others")],
        pipeline={"publish": {"to": "./given", "of": "trained"}},
    )  # fmt: skip
    tunemill(hub, project)
    _, head, text = (project.folder / "given" / CARD).read_text().split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "apache-2.0" and "licence apache-2.0)" in text, text
    assert "| team/sums | mit, cc-by-4.0 | commit" in text and "| team/others | unknown | commit" in text, (
        text
    )
    bom = (project.folder / "given" / BOM_FILE).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom) is None
    told = {
        item["name"]: item["licenses"][0]["license"]["name"]
        for item in json.loads(bom)["components"]
        if "licenses" in item
    }
    assert told == {"team/base": "apache-2.0", "team/sums": "mit, cc-by-4.0", "team/others": "unknown"}
    # The folder of the model holds what was needed of it, and no card.
    assert not list((project.state / "artifacts" / "hub_files").glob(f"*/data/{CARD}"))


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n# x", "mit"),
        ("\n---\r\nlicense: other\r\nlicense_name: llama3.2\r\n---\r\n", "llama3.2"),
        ("---\nlicense: [mit, 3, gpl-3.0]\n---", "mit, gpl-3.0"),
        ("---\nlicense: [\n---", None),
        ("# license: mit", None),
        ("---\n- license\n---", None),
        ("", None),
    ],
)
def test_the_licence_that_a_card_names(card, licence):
    assert licence_in(card) == licence


def test_an_object_store_gets_it_once_and_goes_on_where_it_was_cut(project, memory):
    place = "memory://models/dates"
    # It has no credentials and no network; what a store is, is the same to fsspec.
    files = {}
    for name, text in (("README.md", "card"), ("a.bin", "aaaa"), ("b.bin", "bbbb")):
        files[name] = project.folder / name
        files[name].write_text(text)
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    lineage = json.dumps({AS_PUBLISHED: {"digest": "d1", "files": hashes}}).encode()
    content = Content("dates", "d1", files, hashes, lineage)
    target, known = TargetFolder(place), StatCache(project.folder / "cache.sqlite")
    assert target.send(content, known).files == 4
    assert target.send(content, known).files == 0
    # Another machine, which remembers nothing, believes the lineage and the sizes.
    assert target.send(content, StatCache(project.folder / "other.sqlite")).files == 0
    memory.rm_file("/models/dates/b.bin")
    assert target.send(content, known).files == 2
    # A new model takes away what only the old one had.
    less = {name: path for name, path in files.items() if name != "a.bin"}
    lineage = json.dumps(
        {AS_PUBLISHED: {"digest": "d2", "files": {name: hashes[name] for name in less}}}
    ).encode()
    assert target.send(Content("dates", "d2", less, hashes, lineage), known).files == 1
    assert not memory.exists("/models/dates/a.bin") and memory.exists("/models/dates/b.bin")


def small_content(folder, **more):
    """What is published of a card and of other files, by name and text."""
    texts = {CARD: "card", **more}
    for name, text in texts.items():
        (folder / name).write_text(text)
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    lineage = json.dumps({AS_PUBLISHED: {"digest": "d", "files": hashes}}).encode()
    return Content("dates", "d", {name: folder / name for name in texts}, hashes, lineage)


@pytest.mark.parametrize("remembers", [True, False])
def test_another_signature_of_the_same_files_is_sent(tmp_path, memory, remembers):
    for place in (str(tmp_path / "place"), "memory://models/signed"):
        target, known = TargetFolder(place), StatCache(tmp_path / "cache.sqlite")
        assert target.send(small_content(tmp_path, **{SIGNATURE_FILE: "one"}), known).files == 3
        known = known if remembers else StatCache(tmp_path / "other.sqlite")
        again = small_content(tmp_path, **{SIGNATURE_FILE: "two"})
        assert target.send(again, known).files == 2 and target.send(again, known).files == 0
    assert (tmp_path / "place" / SIGNATURE_FILE).read_text() == "two"
    assert memory.cat_file(f"/models/signed/{SIGNATURE_FILE}") == b"two"


def test_files_of_others_are_neither_written_over_nor_taken_away(tmp_path):
    content, known = small_content(tmp_path), StatCache(tmp_path / "cache.sqlite")
    place = tmp_path / "place"
    place.mkdir()
    (place / CARD).write_text("of mine")
    with pytest.raises(StoreError, match=r"has README\.md already, which Tunemill has not published there"):
        TargetFolder(str(place)).send(content, known)
    assert (place / CARD).read_text() == "of mine" and len(list(place.iterdir())) == 1
    # What a lineage there names is believed inside of the folder only.
    (place / CARD).unlink()
    outside = tmp_path / "outside"
    for name in ("../outside", str(outside)):
        outside.write_text("stays")
        (place / LINEAGE_FILE).write_text(json.dumps({AS_PUBLISHED: {"digest": "x", "files": {name: "x"}}}))
        TargetFolder(str(place)).send(content, known)
        assert outside.read_text() == "stays" and (place / CARD).read_text() == "card"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"hub_model_id": "no repository"}, "write owner/name of a model on the Hub"),
        ({"hub_model_id": NAME, "hub_strategy": "all_checkpoints"}, "all_checkpoints is not supported yet"),
        ({"hub_model_id": NAME, "hf_use_auth_token": False}, "hf_use_auth_token: false sends none"),
        ({"pipeline": {"publish": {"of": "merged"}}}, "nothing says where to publish"),
        ({"pipeline": {"publish": {"to": "./x", "of": "mergd"}}}, "there are trained, merged, quantized"),
        ({"pipeline": {"publish": {"to": "https://example.org/x"}}}, "cannot be written to"),
        ({"pipeline": {"publish": {"to": ["./x", "./x"]}}}, "names a place twice"),
        (
            {"pipeline": {"publish": {"to": "./x", "revision": "v1"}}},
            "only a repository of the Hub has branches",
        ),
        ({"pipeline": {"publish": {"to": NAME}}, "hub_model_id": NAME}, "keep one"),
        (
            {"pipeline": {"publish": {"to": NAME, "revision": "v1"}}, "hub_revision": "v2"},
            "both name the branch; keep one",
        ),
    ],
)
def test_what_cannot_be_published_is_told_by_check(project, keys, said):
    project.edit(**keys)
    with pytest.raises(ConfigError) as error:
        load_pipeline(project.yaml)
    assert said in str(error.value), str(error.value)


def test_what_gates_look_at_comes_first(project):
    project.edit(pipeline={"publish": {"to": "./given"}, "leakage": "fail"})
    nodes = {node.name: node for node in load_pipeline(project.yaml).nodes}
    assert nodes["published"].inputs["leakage"] == ("leakage",)
    project.edit(pipeline={"publish": {"to": "./given"}})
    nodes = {node.name: node for node in load_pipeline(project.yaml).nodes}
    assert "leakage" not in nodes["published"].inputs


def test_nothing_is_published_past_a_gate(project):
    gate = {"metric": "exact_match", "of": "merged", "min": 0.99}
    project.edit(pipeline={"publish": {"to": "./given", "of": "merged"}, "gates": [gate]})
    finished = project.run(only={"published"})
    assert finished["published"].state in ("failed", "skipped"), finished["published"]
    assert not (project.folder / "given").exists()
