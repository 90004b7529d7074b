from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import export_world as world  # first: it skips this file when the extra is missing
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

from workbench.engine.export import export_checkpoint
from workbench.engine.export.graph import check_graph
from workbench.engine.export.labels import LabelPlan
from workbench.engine.export.parity import check_parity, make_probes
from workbench.errors import ModelError
from workbench.runtime.onnx import OnnxSession
from workbench.runtime.read import read_texts
from workbench.tasks.spec import load_spec

pytestmark = pytest.mark.export

TEXTS = (
    "The battery lasts two days and the screen is sharp.",
    "物流很快",
    "Delivery was late, but the service team answered within an hour! " * 3,
    "ok",
    "The pen of the Ondine Folio M2 feels like paper; 客服态度很好。",
)
SENTIMENTS = ("negative", "neutral", "positive")


def torch_logits(checkpoint: Path, texts: tuple[str, ...], *, tokens: bool) -> tuple[Any, Any]:
    """Input ids, mask and logits as the library gives them: its own tokenizer, padding, mask and attention."""
    auto = transformers.AutoModelForTokenClassification if tokens else transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(checkpoint).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return batch, logits.numpy()


def onnx_logits(folder: Path, batch: Any, task: str) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    bias = (1 - batch["attention_mask"].numpy()[:, None, None, :]).astype(np.float32) * np.float32(-1e4)
    return session.run([task], {"input_ids": batch["input_ids"].numpy().astype(np.int32), "attention_bias": bias})[0]


@pytest.mark.parametrize("family", world.FAMILIES)
@pytest.mark.parametrize("tokens", [False, True], ids=["sequence", "tokens"])
def test_every_family_gives_what_torch_gives(family: str, tokens: bool, tmp_path: Path) -> None:
    labels, task = (world.TAGS, "entities") if tokens else (world.STARS, "sentiment")
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", family, labels, tokens=tokens)
    folder = export_checkpoint(checkpoint, tmp_path / "model", task=task)

    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.toml", "tokenizer.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "model"]
    batch, expected = torch_logits(checkpoint, TEXTS, tokens=tokens)
    given = onnx_logits(folder, batch, task)
    assert given.dtype == np.float32
    assert given.shape == expected.shape
    real = batch["attention_mask"].numpy() == 1 if tokens else slice(None)
    np.testing.assert_allclose(given[real], expected[real], atol=1e-4, rtol=0)
    # The texts are told apart, so that the comparison says something.
    assert np.ptp(expected[:, 0] if tokens else expected, axis=0).min() > 0.01

    model = onnx.load(folder / "model.onnx")
    inputs = {value.name: value.type.tensor_type for value in model.graph.input}
    assert {name: kind.elem_type for name, kind in inputs.items()} == {
        "input_ids": onnx.TensorProto.INT32,
        "attention_bias": onnx.TensorProto.FLOAT,
    }
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    spec = load_spec(folder)
    assert spec.max_tokens == 64
    assert spec.pad_id == (1 if "roberta" in family or family == "minilm" else 0)
    assert list(spec.outputs) == [task]
    assert spec.card["source"]["difference_from_torch"] <= 1e-4


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_the_runtime_reads_an_exported_checkpoint(family: str, tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", family, world.STARS)
    folder = export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    short = tuple(text for text in TEXTS if len(text) < 60)
    with OnnxSession(folder, threads=1) as session:
        reading = read_texts(session, short, ("sentiment",))
    for text, given in zip(short, reading.p_sentiment, strict=True):
        _, logits = torch_logits(checkpoint, (text,), tokens=False)
        stars = np.exp(logits[0]) / np.exp(logits[0]).sum()
        expected = [stars[:2].sum(), stars[2], stars[3:].sum()]
        np.testing.assert_allclose(given, expected, atol=1e-4)


def test_weights_can_be_stored_as_fp16(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "roberta", SENTIMENTS)
    exact = export_checkpoint(checkpoint, tmp_path / "fp32", task="sentiment")
    small = export_checkpoint(checkpoint, tmp_path / "fp16", task="sentiment", store_fp16=True)
    kinds = {
        tensor.name.removesuffix("_fp16"): (tensor.data_type, len(tensor.dims))
        for tensor in onnx.load(small / "model.onnx").graph.initializer
    }
    matrices = {name for name, (kind, rank) in kinds.items() if rank >= 2 and kind == onnx.TensorProto.FLOAT16}
    assert len(matrices) >= 15
    assert not any(kind == onnx.TensorProto.FLOAT for kind, rank in kinds.values() if rank >= 2)
    saved = 2 * sum(tensor_size(exact, name) for name in matrices)
    size = {folder: (folder / "model.onnx").stat().st_size for folder in (exact, small)}
    assert size[small] < size[exact] - 0.9 * saved

    # The same numbers as torch with rounded matrices, and not those of the exact export.
    batch, unrounded = torch_logits(checkpoint, TEXTS, tokens=False)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.copy_(weight.half().float())
        expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()
    given = onnx_logits(small, batch, "sentiment")
    np.testing.assert_allclose(given, expected, atol=1e-4)
    assert np.abs(given - unrounded).max() > 1e-4
    np.testing.assert_allclose(onnx_logits(exact, batch, "sentiment"), unrounded, atol=1e-4)
    assert load_spec(small).card["source"]["weights"] == "fp16"


def tensor_size(folder: Path, name: str) -> int:
    tensors = {tensor.name: tensor for tensor in onnx.load(folder / "model.onnx").graph.initializer}
    return int(np.prod(tensors[name].dims)) if name in tensors else 0


def test_topics_one_or_several_a_text(tmp_path: Path) -> None:
    raw = ("bug_report", "pricing", "other")
    several = world.make_checkpoint(tmp_path / "a", "distilbert", raw, problem_type="multi_label_classification")
    spec = load_spec(export_checkpoint(several, tmp_path / "several", task="topics"))
    assert spec.outputs["topics"].kind == "labels"
    assert spec.outputs["topics"].labels == ("bug", "price", "other")
    assert spec.outputs["topics"].thresholds == (0.5, 0.5, 0.5)
    one = world.make_checkpoint(tmp_path / "b", "distilbert", raw)
    spec = load_spec(export_checkpoint(one, tmp_path / "one", task="topics", labels={"other": "quality"}))
    assert spec.outputs["topics"].kind == "classes"
    assert spec.outputs["topics"].labels == ("bug", "price", "quality")


def test_default_labels_are_not_written_by_the_library_but_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", ("LABEL_0", "LABEL_1"))
    assert "id2label" not in json.loads((checkpoint / "config.json").read_text())
    folder = export_checkpoint(
        checkpoint, tmp_path / "model", task="sentiment", labels={"LABEL_0": "positive", "LABEL_1": "negative"}
    )
    assert load_spec(folder).outputs["sentiment"].labels == ("positive", "negative")
    assert "in order" not in caplog.text


def test_the_longest_text_is_what_tokenizer_and_positions_allow(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS, max_tokens=64)
    edit(checkpoint / "tokenizer_config.json", model_max_length=40)
    assert load_spec(export_checkpoint(checkpoint, tmp_path / "a", task="sentiment")).max_tokens == 40
    edit(checkpoint / "tokenizer_config.json", model_max_length=10**30)
    assert load_spec(export_checkpoint(checkpoint, tmp_path / "b", task="sentiment")).max_tokens == 64


def test_a_vocabulary_without_tokenizer_json_is_converted(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    batch, _ = torch_logits(checkpoint, TEXTS, tokens=False)
    model = json.loads((checkpoint / "tokenizer.json").read_text())["model"]
    words = sorted(model["vocab"], key=model["vocab"].get)
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer_config.json").unlink()
    (checkpoint / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    folder = export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = batch["input_ids"].tolist()[0]
    assert tokenizer(TEXTS[0])["input_ids"] == ids[: sum(batch["attention_mask"].tolist()[0])]


def test_padding_and_truncation_stay_out_of_tokenizer_json(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    tokenizer("a b", padding="max_length", truncation=True, max_length=9)
    tokenizer.save_pretrained(checkpoint)
    assert json.loads((checkpoint / "tokenizer.json").read_text())["padding"]
    folder = export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    written = json.loads((folder / "tokenizer.json").read_text())
    assert (written["padding"], written["truncation"]) == (None, None)


def test_pickled_weights_are_read(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "electra", SENTIMENTS)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint)
    batch, expected = torch_logits(checkpoint, TEXTS, tokens=False)
    torch.save(model.state_dict(), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    folder = export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    np.testing.assert_allclose(onnx_logits(folder, batch, "sentiment"), expected, atol=1e-4)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    (checkpoint / "modeling_trap.py").write_text(f"import os; os.mkdir({str(sprung)!r})\nclass Trap: pass\n")
    edit(
        checkpoint / "config.json",
        auto_map={
            "AutoConfig": "modeling_trap.Trap",
            "AutoModelForSequenceClassification": "modeling_trap.Trap",
        },
    )
    edit(
        checkpoint / "tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_trap.Trap", "modeling_trap.Trap"]}
    )
    export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    assert not sprung.exists()

    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(ModelError, match=r"weights of .* could not be loaded"):
        export_checkpoint(checkpoint, tmp_path / "other", task="sentiment")
    assert not sprung.exists()


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    base = transformers.AutoModel.from_pretrained(checkpoint)
    base.save_pretrained(checkpoint)
    with pytest.raises(ModelError, match=r"is a BertModel; sentiment needs one label or several a text"):
        export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    # Without a word on what it is, the missing weights say it.
    edit(checkpoint / "config.json", architectures=None)
    with pytest.raises(ModelError, match=r"lacks weights .*classifier\.bias, classifier\.weight.*answers at random"):
        export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_a_head_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", ("O", "B-ORG", "I-ORG"))
    with pytest.raises(ModelError, match="entities needs one label a token"):
        export_checkpoint(checkpoint, tmp_path / "model", task="entities")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, r"family 'gpt2'.*exports bert, distilbert"),
        ({"is_decoder": True}, "does not export"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        (
            {"id2label": {"0": "joy", "1": "rage", "2": "calm"}},
            r"'joy', 'rage', 'calm' cannot be read.*\n.*\npath = ",
        ),
        ({"problem_type": "regression"}, "measures"),
        ({"hidden_size": 48}, "lacks weights|could not be loaded"),
    ],
)
def test_what_cannot_be_exported_says_why(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    edit(checkpoint / "config.json", **changes)
    with pytest.raises(ModelError, match=re.compile(message, re.DOTALL)):
        export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights[:500])
    with pytest.raises(ModelError, match=r"weights of .* could not be loaded"):
        export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    (checkpoint / "model.safetensors").write_bytes(weights)
    (checkpoint / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer of .* could not be loaded"):
        export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    with pytest.raises(ModelError, match="neither tokenizer\\.json nor a vocabulary"):
        export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json of .* is not JSON"):
        export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    (checkpoint / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    with pytest.raises(ModelError, match="There is no folder"):
        export_checkpoint(tmp_path / "nowhere", tmp_path / "model", task="sentiment")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    other = world.make_checkpoint(tmp_path / "other", "roberta", SENTIMENTS)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).write_bytes((other / name).read_bytes())
    with pytest.raises(ModelError, match="do not belong together"):
        export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match="exists and is not empty"):
        export_checkpoint(tmp_path, tmp_path / "model", task="sentiment")
    assert (tmp_path / "model" / "mine.txt").read_text() == "mine"


def test_a_difference_from_torch_is_an_error_with_the_number(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    folder = export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")
    plan = LabelPlan("sentiment", "classes", SENTIMENTS, SENTIMENTS)
    probes = make_probes(specials=(2, 3), vocabulary=range(5, 60), max_tokens=64, pad_id=0)
    assert {probe.input_ids.shape[1] for probe in probes} == {3, 42, 64, 10}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    references = []
    with torch.no_grad():
        for probe in probes:
            ids, mask = torch.from_numpy(probe.input_ids), torch.from_numpy(probe.mask)
            references.append(model(input_ids=ids, attention_mask=mask).logits.numpy())
    assert check_parity(folder / "model.onnx", plan, probes, references) < 1e-4
    references[1][2, 0] = 0.0
    with pytest.raises(ModelError, match=r"differs from torch by \d\.?\d*\S* on random texts; 0\.0001 is allowed"):
        check_parity(folder / "model.onnx", plan, probes, references)
    references[1][2, 0] = np.nan
    with pytest.raises(ModelError, match="differs from torch by inf"):
        check_parity(folder / "model.onnx", plan, probes, references)


def test_a_graph_with_other_inputs_or_a_mask_of_its_own_is_refused(tmp_path: Path) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    path = export_checkpoint(checkpoint, tmp_path / "model", task="sentiment") / "model.onnx"
    plan = LabelPlan("sentiment", "classes", SENTIMENTS, SENTIMENTS)
    check_graph(path, plan)
    with pytest.raises(ModelError, match=r"topics is missing.*sentiment is .*, not expected"):
        check_graph(path, LabelPlan("topics", "classes", SENTIMENTS, SENTIMENTS))
    with pytest.raises(ModelError, match=r"sentiment is \(1, \['batch', 3\]\), not \(1, \['batch', 2\]\)"):
        check_graph(path, LabelPlan("sentiment", "classes", SENTIMENTS[:2], SENTIMENTS[:2]))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    model.graph.node.insert(0, onnx.helper.make_node("Neg", ["attention_bias"], ["unused"]))
    onnx.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(ModelError, match=r"input_ids is \(7, .*goes into Add, Neg, not only into additions"):
        check_graph(tmp_path / "wrong.onnx", plan)


@pytest.mark.parametrize("package", ["torch", "transformers", "onnx"])
def test_without_the_extra_the_error_says_what_to_install(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = world.make_checkpoint(tmp_path / "checkpoint", "bert", SENTIMENTS)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=rf"needs {package}, .*pip install -c constraints\.txt -e '\.\[export\]'"):
        export_checkpoint(checkpoint, tmp_path / "model", task="sentiment")


def test_importing_the_package_imports_none_of_the_heavy_ones() -> None:
    code = (
        "import sys, workbench.engine.export\n"
        "print(*{'torch', 'transformers', 'onnx', 'onnxruntime', 'huggingface_hub'} & {*sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == ""


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
