from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import export_world as world  # first: it skips this file when the extra is missing
import huggingface_hub
import pytest

from workbench.engine.export import export_checkpoint, model_folder
from workbench.errors import ModelError
from workbench.settings import settings
from workbench.tasks.spec import load_spec
from workbench.workspace import ModelChoice, Workspace, load_workspace

pytestmark = pytest.mark.export

SENTIMENTS = ("negative", "neutral", "positive")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "workspace.toml").write_text(
        'name = "w"\n[company]\nid = "own"\nname = "Own"\n[[competitors]]\nid = "rival"\nname = "Rival"\n'
    )
    return load_workspace(folder)


def test_the_bundled_model_is_a_folder_under_engines(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    settings.cache_clear()
    try:
        with pytest.raises(ModelError, match=r'bundled = "mine".*has no model\.onnx, tokenizer\.json, model\.toml'):
            model_folder(ModelChoice(bundled="mine"), "sentiment", workspace)
        checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
        made = export_checkpoint(checkpoint, tmp_path / "engines" / "mine", task="sentiment")
        assert model_folder(ModelChoice(bundled="mine"), "sentiment", workspace) == made
        with pytest.raises(ModelError, match="Take labels out"):
            model_folder(ModelChoice(bundled="mine", labels={"a": "negative"}), "sentiment", workspace)
    finally:
        settings.cache_clear()


def test_a_finished_folder_is_used_as_it_is(workspace: Workspace, tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    made = export_checkpoint(checkpoint, workspace.root / "finished", task="sentiment")
    for path in ("finished", str(made)):
        assert model_folder(ModelChoice(path=path), "sentiment", workspace) == made
    (made / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r'path = "finished".*has no tokenizer\.json'):
        model_folder(ModelChoice(path="finished"), "sentiment", workspace)
    assert not (workspace.root / "models").exists()


def test_a_checkpoint_is_exported_once_for_each_of_its_states(workspace: Workspace) -> None:
    checkpoint = world.make_checkpoint(workspace.root / "My Model", "distilbert", SENTIMENTS)
    choice = ModelChoice(path="My Model")
    made = model_folder(choice, "sentiment", workspace)
    assert made.parent == workspace.root / "models"
    assert made.name.startswith("my-model-")
    written = (made / "model.onnx").stat().st_mtime_ns
    assert model_folder(choice, "sentiment", workspace) == made
    assert (made / "model.onnx").stat().st_mtime_ns == written
    # Another reading of the labels, and other weights, are other models.
    swapped = ModelChoice(path="My Model", labels={"negative": "positive", "positive": "negative"})
    other = model_folder(swapped, "sentiment", workspace)
    assert load_spec(other).outputs["sentiment"].labels == ("positive", "neutral", "negative")
    world.make_checkpoint(checkpoint, "distilbert", SENTIMENTS, seed=8)
    trained = model_folder(choice, "sentiment", workspace)
    assert len({made, other, trained}) == 3
    assert (trained / "model.onnx").read_bytes() != (made / "model.onnx").read_bytes()


def test_an_export_cut_short_is_made_again(workspace: Workspace) -> None:
    world.make_checkpoint(workspace.root / "c", "distilbert", SENTIMENTS)
    made = model_folder(ModelChoice(path="c"), "sentiment", workspace)
    shutil.rmtree(made)
    (made.parent / f".{made.name}.x.part").mkdir()
    assert model_folder(ModelChoice(path="c"), "sentiment", workspace) == made
    assert load_spec(made).outputs["sentiment"].labels == SENTIMENTS


class Hub:
    """A Hugging Face hub with one checkpoint, on loopback; notes which files it gave."""

    def __init__(self, checkpoint: Path) -> None:
        self.given: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def answer(self) -> None:
                path = self.path.partition("?")[0]
                name = path.removeprefix(f"/org/name/resolve/{COMMIT}/")
                files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
                headers = {"Content-Type": "application/json"}
                status, body = 200, b""
                if path == "/api/models/org/name/revision/main":
                    body = json.dumps({"id": "org/name", "sha": COMMIT, "siblings": []}).encode()
                elif path == f"/api/models/org/name/tree/{COMMIT}":
                    body = json.dumps([self.entry(file) for file in files]).encode()
                elif name != path and (checkpoint / name).is_file():
                    body = (checkpoint / name).read_bytes()
                    headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}  # noqa: S324
                    if self.command == "GET":
                        hub.given.append(name)
                else:
                    status = 404
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def entry(self, file: Path) -> dict[str, object]:
                digest = hashlib.sha1(file.read_bytes()).hexdigest()  # noqa: S324  # as the hub does
                size = file.stat().st_size
                return {"type": "file", "path": str(file.relative_to(checkpoint)), "size": size, "oid": digest}

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(tmp_path / "published")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.close()


def test_a_checkpoint_on_the_hub_is_fetched_and_exported_once(hub: Hub, workspace: Workspace, tmp_path: Path) -> None:
    published = world.make_checkpoint(tmp_path / "published", "bert", ("O", "B-ORG", "I-ORG"), tokens=True)
    (published / "onnx").mkdir()
    (published / "onnx" / "model.onnx").write_bytes(b"big")
    (published / "pytorch_model.bin").write_bytes(b"the same weights, pickled")
    (published / "README.md").write_text("hello")
    choice = ModelChoice(huggingface="org/name")
    made = model_folder(choice, "entities", workspace)
    assert sorted(hub.given) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    spec = load_spec(made)
    assert spec.outputs["entities"].labels == ("O", "B-company", "I-company")
    assert (spec.name, spec.version) == ("org-name", COMMIT[:12])
    assert spec.card["source"]["checkpoint"] == "org/name"
    assert spec.card["source"]["revision"] == COMMIT
    # Once exported, neither the hub nor its cache is asked again.
    hub.close()
    shutil.rmtree(tmp_path / "cache")
    assert model_folder(choice, "entities", workspace) == made


def test_pickled_weights_are_fetched_where_there_are_no_others(
    hub: Hub, workspace: Workspace, tmp_path: Path
) -> None:
    published = world.make_checkpoint(tmp_path / "published", "bert", SENTIMENTS)
    model = world.transformers.AutoModelForSequenceClassification.from_pretrained(published)
    world.torch.save(model.state_dict(), published / "pytorch_model.bin")
    (published / "model.safetensors").unlink()
    made = model_folder(ModelChoice(huggingface="org/name"), "sentiment", workspace)
    assert "pytorch_model.bin" in hub.given
    assert load_spec(made).outputs["sentiment"].labels == SENTIMENTS


def test_labels_not_understood_cost_no_download(hub: Hub, workspace: Workspace, tmp_path: Path) -> None:
    world.make_checkpoint(tmp_path / "published", "bert", ("joy", "rage"))
    with pytest.raises(
        ModelError, match=r'\[models\.sentiment\]\nhuggingface = "org/name"\nlabels = \{ "joy" = "\?"'
    ):
        model_folder(ModelChoice(huggingface="org/name"), "sentiment", workspace)
    assert hub.given == ["config.json"]


def test_a_hub_out_of_reach_says_how_to_go_on_without(hub: Hub, workspace: Workspace, tmp_path: Path) -> None:
    world.make_checkpoint(tmp_path / "published", "bert", SENTIMENTS)
    with pytest.raises(ModelError, match=r'other/name could not be fetched.*path = "FOLDER"'):
        model_folder(ModelChoice(huggingface="other/name"), "sentiment", workspace)
    hub.close()
    with pytest.raises(ModelError, match=r'org/name could not be fetched.*path = "FOLDER"'):
        model_folder(ModelChoice(huggingface="org/name"), "sentiment", workspace)
    assert not (workspace.root / "models").exists()
