"""Training from the command line.

python -m workbench.engine.training train                                        data to a model folder
python -m workbench.engine.training head WEIGHTS TOKENIZER ARRAYS LESSONS OUT    the sentiment head taught again
python -m workbench.engine.training bundle WEIGHTS TOKENIZER ARRAYS FOLDER       weights to a model folder
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from workbench.engine.training.batches import Arrays
from workbench.engine.training.bundle import Bundle, bundle_from_checkpoint
from workbench.engine.training.calibrate import held_out_rows
from workbench.engine.training.head import HeadRecipe, read_lessons, refit_checkpoint
from workbench.engine.training.run import train_model
from workbench.errors import ModelError, WorkbenchError
from workbench.params import FineTune
from workbench.settings import settings

app = typer.Typer(help="Train the bundled models.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _app() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")


@app.command()
def train(
    data: Annotated[str, typer.Option(help="Folder that holds text; default: WORKBENCH_DATA.")] = "",
    out: Annotated[str, typer.Option(help="Model folder to write; default: build/fine_tune/<name>.")] = "",
    name: Annotated[str, typer.Option(help="The model's name.")] = "reviews",
    version: Annotated[str, typer.Option(help="The model's version.")] = "1",
    rows: Annotated[int, typer.Option(help="At most so many texts; 0: all.")] = 0,
    vocabulary: Annotated[int, typer.Option(help="Pieces of the vocabulary.")] = 16_000,
    layers: Annotated[int, typer.Option(help="Layers of the network.")] = 6,
    width: Annotated[int, typer.Option(help="Width of its hidden states.")] = 256,
    pretrain_steps: Annotated[int, typer.Option(help="Steps of guessing masked words.")] = 5_000,
    tune_steps: Annotated[int, typer.Option(help="Steps of learning the tasks.")] = 6_000,
    teachers: Annotated[int, typer.Option(help="Larger networks that teach beside the labels.")] = 0,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a batch.")] = 32_768,
    own_share: Annotated[float, typer.Option(help="Share of the own texts that is kept for calibration.")] = 0.25,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 7,
    replace: Annotated[bool, typer.Option(help="Replace a folder that exists.")] = False,
) -> None:
    """Train a model from the data folder: the notebook fine_tune in one call."""
    values = dict(locals())
    try:
        _show(train_model(FineTune.check(**values), progress=True))
    except WorkbenchError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def bundle(
    weights: Annotated[Path, typer.Argument(help="State dict of the network (.pt).")],
    tokenizer: Annotated[Path, typer.Argument(help="Its tokenizer (.json).")],
    arrays: Annotated[Path, typer.Argument(help="The prepared texts (.npz).")],
    folder: Annotated[Path, typer.Argument(help="Model folder to write.")],
    name: Annotated[str, typer.Option(help="The model's name.")] = "reviews",
    version: Annotated[str, typer.Option(help="The model's version.")] = "1",
    training: Annotated[Path | None, typer.Option(help="JSON: how it was trained (date, steps, device).")] = None,
    metrics: Annotated[Path | None, typer.Option(help="JSON: metrics by set; without it they are measured.")] = None,
    limits: Annotated[Path | None, typer.Option(help="JSON: list of sentences; without it they are found.")] = None,
    more_limits: Annotated[Path | None, typer.Option(help="JSON: sentences to add to the limits.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder, for the hashes of the sets.")] = None,
    own_share: Annotated[
        float, typer.Option(help="Share of the own texts that training left out, beside all dev parts.")
    ] = 0.0,
    held_out: Annotated[
        Path | None, typer.Option(help="Rows that training left out (.npy), in place of --own-share.")
    ] = None,
    test_rows: Annotated[int | None, typer.Option(help="Most texts of a set to measure with; default all.")] = None,
    trained: Annotated[
        Path | None,
        typer.Option(help="Rows that were trained on (.npy); default: training parts, less those left out."),
    ] = None,
    replace: Annotated[bool, typer.Option(help="Replace a folder that exists.")] = False,
) -> None:
    """Write a calibrated, measured model folder."""
    try:
        made = bundle_from_checkpoint(
            weights,
            tokenizer,
            arrays,
            folder,
            name=name,
            version=version,
            training=json.loads(training.read_text()) if training else {},
            metrics=json.loads(metrics.read_text()) if metrics else None,
            limits=json.loads(limits.read_text()) if limits else None,
            more_limits=json.loads(more_limits.read_text()) if more_limits else (),
            data=data,
            calibration_texts=settings().home / "calibration",
            held_out=_rows(held_out) if held_out else _own_share(arrays, own_share),
            trained=_rows(trained) if trained else None,
            test_rows=test_rows,
            replace=replace,
            progress=True,
        )
    except WorkbenchError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    _show(made)


@app.command()
def head(
    weights: Annotated[Path, typer.Argument(help="State dict of the network (.pt).")],
    tokenizer: Annotated[Path, typer.Argument(help="Its tokenizer (.json).")],
    arrays: Annotated[Path, typer.Argument(help="The prepared texts (.npz), for the anchors.")],
    lessons: Annotated[Path, typer.Argument(help="Labelled texts to learn (.jsonl), as in calibration/training.")],
    out: Annotated[Path, typer.Argument(help="State dict to write (.pt).")],
    first: Annotated[str, typer.Option(help="Id of the first lesson in the file; default: all.")] = "",
    last: Annotated[str, typer.Option(help="Id of the last one.")] = "",
    anchors: Annotated[
        Path | None,
        typer.Option(help="Rows on which the head keeps its answers (.npy); default: all training parts."),
    ] = None,
    share: Annotated[float, typer.Option(help="Share of the lessons in the loss.")] = HeadRecipe.lessons,
    ridge: Annotated[float, typer.Option(help="How much it costs to move the weights.")] = HeadRecipe.ridge,
) -> None:
    """Teach the sentiment head some texts, on an encoder that stays as it is; then `bundle` the new weights."""
    try:
        moved = refit_checkpoint(
            weights,
            tokenizer,
            out,
            lessons=read_lessons(lessons, first=first, last=last),
            arrays=arrays,
            anchors=_rows(anchors) if anchors else None,
            recipe=HeadRecipe(lessons=share, ridge=ridge),
        )
    except (OSError, WorkbenchError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{out}: the weights of the head moved by {moved:.3f}")


def _show(made: Bundle) -> None:
    for row in made.rows():
        typer.echo(f"{row['source']:20} {row['metric']:26} {row['value']:.3f}  n {row['n']:,}")
    typer.echo(f"{made.folder}: {sum(path.stat().st_size for path in made.folder.iterdir()):,} bytes")


def _own_share(arrays: Path, share: float) -> NDArray[np.int64] | None:
    return held_out_rows(Arrays(arrays), own_share=share) if arrays.is_file() else None


def _rows(path: Path) -> NDArray[np.int64]:
    try:
        rows = np.load(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} holds no rows: {error}. Write them with numpy.save.") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ModelError(f"{path} is no list of row numbers. Write one with numpy.save(path, rows).")
    return np.unique(rows).astype(np.int64)


if __name__ == "__main__":
    app()
