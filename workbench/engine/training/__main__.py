"""Weights from training to a model folder: python -m workbench.engine.training WEIGHTS TOKENIZER ARRAYS FOLDER."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from workbench.engine.training.batches import Arrays
from workbench.engine.training.bundle import bundle_from_checkpoint
from workbench.engine.training.calibrate import held_out_rows
from workbench.errors import WorkbenchError
from workbench.settings import settings


def main(
    weights: Annotated[Path, typer.Argument(help="State dict of the network (.pt).")],
    tokenizer: Annotated[Path, typer.Argument(help="Its tokenizer (.json).")],
    arrays: Annotated[Path, typer.Argument(help="The prepared texts (.npz).")],
    folder: Annotated[Path, typer.Argument(help="Model folder to write.")],
    name: Annotated[str, typer.Option(help="The model's name.")] = "reviews",
    version: Annotated[str, typer.Option(help="The model's version.")] = "1",
    training: Annotated[Path | None, typer.Option(help="JSON: how it was trained (date, steps, device).")] = None,
    metrics: Annotated[Path | None, typer.Option(help="JSON: metrics by set; without it they are measured.")] = None,
    limits: Annotated[Path | None, typer.Option(help="JSON: list of sentences; without it they are found.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder, for the hashes of the sets.")] = None,
    own_share: Annotated[float, typer.Option(help="Share of the own texts that training left out.")] = 0.0,
    test_rows: Annotated[int | None, typer.Option(help="Most texts of a set to measure with; default all.")] = None,
    trained: Annotated[Path | None, typer.Option(help="Rows that were trained on (.npy).")] = None,
    replace: Annotated[bool, typer.Option(help="Replace a folder that exists.")] = False,
) -> None:
    """Write a calibrated, measured model folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        bundle = bundle_from_checkpoint(
            weights,
            tokenizer,
            arrays,
            folder,
            name=name,
            version=version,
            training=json.loads(training.read_text()) if training else {},
            metrics=json.loads(metrics.read_text()) if metrics else None,
            limits=json.loads(limits.read_text()) if limits else None,
            data=data,
            calibration_texts=settings().home / "calibration",
            held_out=held_out_rows(Arrays(arrays), own_share=own_share) if arrays.is_file() else None,
            trained=np.load(trained) if trained else None,
            test_rows=test_rows,
            replace=replace,
            progress=True,
        )
    except WorkbenchError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    for row in bundle.rows():
        typer.echo(f"{row['source']:20} {row['metric']:26} {row['value']:.3f}  n {row['n']:,}")
    typer.echo(f"{bundle.folder}: {sum(path.stat().st_size for path in bundle.folder.iterdir()):,} bytes")


if __name__ == "__main__":
    typer.run(main)
