"""Trained weights to a model folder: model.onnx, tokenizer.json, model.toml.

    write_bundle             a network as a folder; how its logits are read and what its card says are given
    bundle_model             the same, calibrated on held-out rows and measured on test rows with the written graph
    bundle_from_checkpoint   the same from files, as training on another machine leaves them

A folder appears whole or not at all. From the command line: python -m workbench.engine.training bundle --help
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from workbench.engine.training.batches import Arrays
from workbench.engine.training.calibrate import Calibration, calibrate, draw_rows, held_out_rows, unseen_rows
from workbench.engine.training.cards import find_limits, list_sets, metrics_table, model_toml
from workbench.engine.training.encoder import Encoder, EncoderConfig
from workbench.engine.training.exported import (
    check_graph,
    check_parity,
    is_batch_invariant,
    rounded_copy,
    write_graph,
)
from workbench.engine.training.measure import Measured, evaluate, reader
from workbench.engine.training.sets import hash_files
from workbench.errors import ModelError
from workbench.files import write_text
from workbench.runtime.onnx import OnnxSession
from workbench.tasks.spec import MODEL_FILES

__all__ = ["Bundle", "bundle_from_checkpoint", "bundle_model", "load_checkpoint", "write_bundle"]

log = logging.getLogger(__name__)

CALIBRATION_ROWS: Final = 6_000


@dataclass(frozen=True)
class Bundle:
    """A written model folder, how its logits are read, and what was measured with it."""

    folder: Path
    calibration: Calibration
    measured: tuple[Measured, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Every measured value: source, language, split, metric, value, n."""
        return [row for item in self.measured for row in item.as_rows()]


def write_bundle(
    folder: Path,
    model: Encoder,
    tokenizer: Tokenizer,
    *,
    name: str,
    version: str,
    calibration: Calibration | None = None,
    card: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> Path:
    """Write ``model`` and ``tokenizer`` as a model folder; give the folder.

    ``card`` holds what model.toml says besides (tables such as training and metrics, the list limits). The graph is
    checked against its contract and against torch before the folder appears. The same weights, tokenizer and card
    give the same bytes. Raises ModelError when the two do not belong together, the graph is not what it should be, or
    ``folder`` exists and is not to be replaced.
    """
    with _making(folder, replace=replace) as work:
        network = _write_network(work, model, tokenizer)
        _write_card(
            work,
            model,
            name=name,
            version=version,
            calibration=calibration,
            card={**(card or {}), "network": network},
        )
        OnnxSession(work, threads=1).close()
    return folder


def bundle_model(
    folder: Path,
    model: Encoder,
    tokenizer: Tokenizer,
    arrays: Arrays,
    *,
    name: str,
    version: str,
    trained: NDArray[np.int64],
    held_out: NDArray[np.int64],
    training: Mapping[str, Any],
    metrics: Mapping[str, Any] | None = None,
    limits: Sequence[str] | None = None,
    more_limits: Sequence[str] = (),
    data: Path | None = None,
    calibration_texts: Path | None = None,
    calibration_rows: int = CALIBRATION_ROWS,
    test_rows: int | None = None,
    seed: int = 7,
    replace: bool = False,
    progress: bool = False,
) -> Bundle:
    """Write ``model`` as a folder whose probabilities are calibrated and whose card says how good it is.

    ``trained`` are the rows of ``arrays`` it learned from, ``held_out`` rows it did not, of which at most
    ``calibration_rows`` fit temperatures and thresholds. Everything is read with the written graph, as users will.
    ``training`` says how it was trained (date, steps, device, …; ``teachers``, if there were any). ``metrics`` and
    ``limits`` replace what is measured here on the test rows (at most ``test_rows`` of each source), and what follows
    from it; ``more_limits`` are added to it. The files under ``data`` and ``calibration_texts`` are hashed for the
    card.

    Raises ParameterError when a held-out row was trained on; ModelError as `write_bundle`, and when licence and
    origin of a source are not known or a set for evaluation was trained on.
    """
    hashes = hash_files(arrays.sources, data=data, calibration=calibration_texts)
    sets = list_sets(arrays, trained, hashes, taught=bool(training.get("teachers")))
    rows = draw_rows(arrays, unseen_rows(arrays, held_out, trained), calibration_rows, seed=seed)
    with _making(folder, replace=replace) as work:
        network = _write_network(work, model, tokenizer)
        _write_card(work, model, name=name, version=version)
        with OnnxSession(work) as session:
            read = reader(session, arrays, progress=progress)
            calibration = calibrate(read(rows), arrays, rows) if len(rows) else Calibration()
            measured = (
                []
                if metrics is not None
                else evaluate(read, arrays, thresholds=calibration.thresholds, most=test_rows)
            )
        card = {
            "limits": [*(limits if limits is not None else find_limits(measured)), *more_limits],
            "network": network,
            "training": {**training, "sets": sets},
            "metrics": metrics if metrics is not None else metrics_table(measured),
        }
        _write_card(work, model, name=name, version=version, calibration=calibration, card=card)
        OnnxSession(work, threads=1).close()
    log.info("%s %s written to %s", name, version, folder)
    return Bundle(folder, calibration, tuple(measured))


def load_checkpoint(weights: Path) -> Encoder:
    """The network of a file of weights (torch.save of ``Encoder.state_dict()``, any float type), on the CPU.

    Its sizes are read from the weights. Raises ModelError when it is no such file.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))
        vocabulary, width = state["tokens.weight"].shape
        model = Encoder(
            EncoderConfig(
                vocabulary=vocabulary,
                width=width,
                layers=layers,
                inner=state["layers.0.expand.weight"].shape[0],
                positions=state["positions.weight"].shape[0],
                pre_norm="last_norm.weight" in state,
            )
        )
        model.load_state_dict({name: value.float() for name, value in state.items()})
    except Exception as error:  # damaged files fail in whatever reads them first
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{weights} is not a file of weights of this network: {first}. Save them after training with "
            "torch.save(model.state_dict(), path)."
        ) from None
    model.eval()
    return model


def bundle_from_checkpoint(
    weights: Path,
    tokenizer: Path,
    arrays: Path,
    folder: Path,
    *,
    name: str = "reviews",
    version: str = "1",
    training: Mapping[str, Any],
    held_out: NDArray[np.int64] | None = None,
    trained: NDArray[np.int64] | None = None,
    **options: Any,
) -> Bundle:
    """`bundle_model` from files: ``weights`` (.pt), ``tokenizer`` (.json) and ``arrays`` (.npz).

    ``held_out`` is by default every dev part, ``trained`` every training part less ``held_out``. ``options`` are
    those of `bundle_model`.
    """
    for path in (weights, tokenizer, arrays):
        if not path.is_file():
            raise ModelError(f"{path} is not there. Name the file that training wrote.")
    loaded = Arrays(arrays)
    if held_out is None:
        held_out = held_out_rows(loaded, own_share=0.0)
    if trained is None:
        trained = np.setdiff1d(loaded.where(split="train"), held_out)
    return bundle_model(
        folder,
        load_checkpoint(weights),
        Tokenizer.from_file(str(tokenizer)),
        loaded,
        name=name,
        version=version,
        trained=trained,
        held_out=held_out,
        training=training,
        **options,
    )


@contextmanager
def _making(folder: Path, *, replace: bool) -> Iterator[Path]:
    """A folder to write into; it takes the place of ``folder`` when the block ends without an error.

    What else lies in a replaced folder (built engines) stays.
    """
    folder = Path(folder)
    filled = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if filled and not (replace and folder.is_dir()):
        raise ModelError(
            f"{folder} exists and is not empty. Name another folder, or say that it is to be replaced "
            "(replace=True; in the notebook: replace = True)."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        yield work
        if filled:
            old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".old"))
            for path in [path for path in folder.iterdir() if path.name not in MODEL_FILES]:
                path.rename(work / path.name)
            folder.rename(old)
            work.chmod(0o755)
            work.rename(folder)
            shutil.rmtree(old)
        else:
            work.chmod(0o755)
            work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_network(work: Path, model: Encoder, tokenizer: Tokenizer) -> dict[str, Any]:
    """model.onnx and tokenizer.json, checked; what the card says about them."""
    size = max(tokenizer.get_vocab().values()) + 1
    if size > model.config.vocabulary:
        raise ModelError(
            f"The tokenizer knows {size} tokens, the network {model.config.vocabulary}; they do not belong together. "
            "Take both from the same training run."
        )
    rounded = rounded_copy(model)
    path = work / "model.onnx"
    write_graph(rounded, path)
    check_graph(path)
    worst = check_parity(path, rounded)
    # Training cuts and pads; the runtime does its own.
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    write_text(work / "tokenizer.json", plain.to_str(pretty=True) + "\n")
    used = {"guess", "guess_bias"}
    return {
        **{key: value for key, value in model.config.as_dict().items() if key not in ("dropout", "pre_norm")},
        "heads": model.config.heads,
        "parameters": sum(p.numel() for key, p in model.named_parameters() if key.split(".")[0] not in used),
        "weights": "fp16",
        "bytes": path.stat().st_size,
        "difference_from_torch": float(f"{worst:.1g}"),
        # The runtime need not run a lone text twice to give it the bits it gets among others.
        "batch_invariant": is_batch_invariant(path, rounded),
    }


def _write_card(
    work: Path,
    model: Encoder,
    *,
    name: str,
    version: str,
    calibration: Calibration | None = None,
    card: Mapping[str, Any] | None = None,
) -> None:
    text = model_toml(
        name=name,
        version=version,
        max_tokens=model.config.positions,
        pad_id=0,
        calibration=calibration or Calibration(),
        card=card or {},
    )
    write_text(work / "model.toml", text)
