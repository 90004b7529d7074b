"""A Hugging Face classifier exported to a model folder."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from workbench.engine.export.card import card_text
from workbench.engine.export.extra import import_onnx, import_torch, import_transformers
from workbench.engine.export.graph import FAMILIES, check_graph, round_weights, store_weights_fp16, trace_graph
from workbench.engine.export.labels import LabelPlan, checkpoint_labels, plan_labels
from workbench.engine.export.parity import check_parity, make_probes, reference_outputs
from workbench.engine.export.source import Source, fetch_weights, find_source, hash_checkpoint
from workbench.errors import ModelError
from workbench.files import write_text
from workbench.progress import tqdm

__all__ = ["export_checkpoint"]

_LOG = logging.getLogger(__name__)

_HEADS: Final = {
    "sentiment": "ForSequenceClassification",
    "topics": "ForSequenceClassification",
    "entities": "ForTokenClassification",
}
_FP32_LIMIT: Final = 480_000_000
"""Parameters above which the weights are stored as FP16: in FP32 one file would not hold them."""

_SAMPLES: Final = (
    "The battery lasts two days, 5 stars!",
    "物流很快，屏幕清晰，就是价格有点高。",
    "",
    "naïve ＦＵＬＬ\t#x-1.0",
)


def export_checkpoint(
    source: str | Path,
    folder: Path,
    *,
    task: str,
    labels: Mapping[str, str] | None = None,
    revision: str | None = None,
    store_fp16: bool = False,
) -> Path:
    """Export a classifier to ``folder`` as model.onnx, tokenizer.json and model.toml; give the folder.

    ``source`` is a folder or a name on the Hugging Face hub (at ``revision``), a BERT, MiniLM, DistilBERT, ELECTRA,
    RoBERTa or XLM-RoBERTa with a sequence head (``task`` sentiment or topics) or a token head (entities). ``labels``
    maps its labels to the workbench's where their names do not say it. With ``store_fp16`` matrices are rounded to
    FP16 and stored so; the graph computes in FP32 either way. The graph is compared with torch before the folder
    appears, and no code from the checkpoint is run.

    Raises ModelError when the extra ``export`` is missing, the checkpoint cannot be fetched, is of another family,
    has no trained head, its labels or tokenizer cannot be read, the graph differs from torch, or ``folder`` exists.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder} exists and is not empty. Remove it or name another folder.")
    found = find_source(source, revision=revision)
    plan = _plan(found, task, labels or {})
    # Asked for before the download, which can be long.
    import_torch()
    import_transformers()
    import_onnx()
    found = fetch_weights(found)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        _write(found, plan, work, store_fp16=store_fp16)
        work.chmod(0o755)
        work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _plan(source: Source, task: str, labels: Mapping[str, str]) -> LabelPlan:
    config = source.config
    family = config.get("model_type")
    if family not in FAMILIES or config.get("is_decoder"):
        raise ModelError(
            f"{source.name} is of the family {family!r}, which the workbench does not export. It exports "
            f"{', '.join(FAMILIES)} (MiniLM is among them). Name such a checkpoint."
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ModelError(
            f"{source.name} counts positions as {config['position_embedding_type']!r}; only absolute positions are "
            "exported. Name another checkpoint."
        )
    raw = checkpoint_labels(config)
    plan = plan_labels(task, raw, mapping=labels, problem_type=config.get("problem_type"), toml_line=source.toml_line)
    named = [str(name) for name in config.get("architectures") or ()]
    if named and not any(name.endswith(_HEADS[task]) for name in named):
        kind = "one label a token" if task == "entities" else "one label or several a text"
        raise ModelError(
            f"{source.name} is a {', '.join(named)}; {task} needs {kind} (…{_HEADS[task]}). Name a checkpoint that "
            "was fine-tuned for that."
        )
    return plan


def _write(source: Source, plan: LabelPlan, folder: Path, *, store_fp16: bool) -> None:
    with tqdm(total=4, desc=f"Exporting {source.name}", unit="step", leave=False) as bar:
        tokenizer, intended = _load_tokenizer(source)
        model = _load_model(source, plan)
        pad_id, max_tokens = _limits(source, model, tokenizer, intended)
        if not store_fp16 and model.num_parameters() > _FP32_LIMIT:
            _LOG.warning("%s is too large for one file in FP32; its weights are stored as FP16", source.name)
            store_fp16 = True
        if store_fp16:
            round_weights(model)
        bar.update()
        probes = make_probes(
            specials=tokenizer.encode("").ids, vocabulary=_words(tokenizer), max_tokens=max_tokens, pad_id=pad_id
        )
        references = reference_outputs(model, probes)
        bar.update()
        # Weights of a graph above 2 GB come as files beside it, and go when it is one file again.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".trace.") as scratch:
            traced = Path(scratch) / "model.onnx"
            trace_graph(model, plan, traced)
            if store_fp16:
                store_weights_fp16(traced)
            traced.replace(folder / "model.onnx")
        check_graph(folder / "model.onnx", plan)
        bar.update()
        worst = check_parity(folder / "model.onnx", plan, probes, references)
        bar.update()
    tokenizer.save(str(folder / "tokenizer.json"))
    digest = hash_checkpoint(source.folder)
    provenance: dict[str, Any] = {
        "checkpoint": source.name if source.revision else Path(source.name).expanduser().resolve().name,
        "revision": source.revision or "",
        "sha256": digest,
        "family": model.config.model_type,
        "parameters": model.num_parameters(),
        "weights": "fp16" if store_fp16 else "fp32",
        "difference_from_torch": float(f"{worst:.2g}"),
        "torch": import_torch().__version__,
        "transformers": import_transformers().__version__,
    }
    text = card_text(
        plan,
        name=model_name(source.name),
        version=(source.revision or digest)[:12],
        max_tokens=max_tokens,
        pad_id=pad_id,
        source=provenance,
    )
    write_text(folder / "model.toml", text)


def _limits(source: Source, model: Any, tokenizer: Tokenizer, intended: int) -> tuple[int, int]:
    """The id of padding, and the tokens a text may have with those that mark its beginning and end."""
    config = model.config
    known = max(tokenizer.get_vocab().values()) + 1
    if known > config.vocab_size:
        raise ModelError(
            f"The tokenizer of {source.name} knows {known} tokens, the model {config.vocab_size}; they do not belong "
            "together. Save both from the same training run."
        )
    pad_id = int(config.pad_token_id or 0)
    # RoBERTa's first position is the one after padding's.
    before = pad_id + 1 if FAMILIES[config.model_type] == "from padding" else 0
    return pad_id, min(intended, int(config.max_position_embeddings) - before)


def model_name(source: str) -> str:
    """A folder name for a checkpoint: "org/Name.v1" is "org-name.v1"."""
    path = Path(source).expanduser()
    plain = path.resolve().name if path.is_dir() else source
    return re.sub(r"[^a-z0-9.]+", "-", plain.lower()).strip("-.") or "model"


def _load_model(source: Source, plan: LabelPlan) -> Any:
    transformers = import_transformers()
    loader = (
        transformers.AutoModelForTokenClassification
        if plan.task == "entities"
        else transformers.AutoModelForSequenceClassification
    )
    with _quiet(transformers):
        try:
            model, info = loader.from_pretrained(
                source.folder,
                trust_remote_code=False,
                local_files_only=True,
                attn_implementation="eager",
                dtype=import_torch().float32,
                output_loading_info=True,
            )
        except Exception as error:  # a damaged file fails in whatever library reads it
            raise ModelError(
                f"The weights of {source.name} could not be loaded: {_first_line(error)} Fetch or save the "
                "checkpoint again, with model.safetensors and config.json from the same run."
            ) from error
    absent = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if absent:
        raise ModelError(
            f"{source.name} lacks weights that {type(model).__name__} needs: {', '.join(absent[:4])}"
            f"{' …' if len(absent) > 4 else ''}. A model without a trained head answers at random; name a checkpoint "
            f"that was fine-tuned for {plan.task}."
        )
    return model.eval()


def _load_tokenizer(source: Source) -> tuple[Tokenizer, int]:
    """The tokenizer as the runtime uses it, and the number of tokens it is meant for."""
    transformers = import_transformers()
    with _quiet(transformers):
        try:
            loaded = transformers.AutoTokenizer.from_pretrained(
                source.folder, trust_remote_code=False, local_files_only=True, use_fast=True
            )
        except Exception as error:  # a missing file, a damaged one, or a converter that is not installed
            raise ModelError(
                f"The tokenizer of {source.name} could not be loaded: {_first_line(error)} The folder needs "
                "tokenizer.json, or a vocabulary that can be converted (sentencepiece models need: pip install "
                "sentencepiece protobuf)."
            ) from error
        if not getattr(loaded, "is_fast", False):
            raise ModelError(
                f"{source.name} has a tokenizer without tokenizer.json ({type(loaded).__name__}), and it cannot be "
                "converted. Name a checkpoint with tokenizer.json."
            )
        tokenizer: Tokenizer = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
        if not _words(tokenizer):  # the library makes an empty one where it finds no vocabulary
            raise ModelError(
                f"{source.name} has no tokenizer: neither tokenizer.json nor a vocabulary. Save it beside the model "
                "with the tokenizer's save_pretrained."
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        for text in _SAMPLES:
            if tokenizer.encode(text).ids != list(loaded(text)["input_ids"]):
                raise ModelError(
                    f"tokenizer.json of {source.name} does not give what {type(loaded).__name__} gives for {text!r}. "
                    "Load and save the tokenizer with the transformers in constraints.txt and try again."
                )
    return tokenizer, int(min(loaded.model_max_length, 1 << 30))


def _words(tokenizer: Tokenizer) -> list[int]:
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return [index for index in sorted(tokenizer.get_vocab().values()) if index not in special]


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the library's own bars and reports; what matters in them becomes an error here."""
    logging_ = transformers.utils.logging
    level, bars = logging_.get_verbosity(), logging_.is_progress_bar_enabled()
    logging_.set_verbosity_error()
    logging_.disable_progress_bar()
    try:
        yield
    finally:
        logging_.set_verbosity(level)
        if bars:
            logging_.enable_progress_bar()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."
