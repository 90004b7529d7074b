"""Measure the project on labelled data:

python -m tests.evaluate extraction --data ../shared/data
python -m tests.evaluate extraction --data ../shared/data --update-floors
python -m tests.evaluate fit-text --data ../shared/data
python -m tests.evaluate models --data ../shared/data
python -m tests.evaluate models --validation FILE --task sentiment
python -m tests.evaluate engines --data ../shared/data --model engines/reviews
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.evaluate.floors import Floor
from workbench.errors import WorkbenchError
from workbench.tasks.labels import TASKS

# What a command needs is imported by it: engines are read on machines that have no more than the runtime.
_BUNDLED = Path(__file__).resolve().parents[2] / "engines" / "reviews"


def _extraction(arguments: argparse.Namespace) -> int:
    from tests.evaluate import extraction_products, extraction_text, floors

    data: Path = arguments.data
    for archive in (extraction_text.ARCHIVE, Path(extraction_products.PAGES)):
        if not (data / archive).is_file():
            print(f"{data / archive} is missing. Give the folder that has it: --data FOLDER.", file=sys.stderr)
            return 2
    results = extraction_text.measure(data, peer=not arguments.skip_peer)
    measured = {
        "text": extraction_text.summarize(results),
        "products": extraction_products.scores(data),
    }
    if arguments.json:
        print(json.dumps(measured, indent=2, sort_keys=True))
    else:
        print(f"## Main text, word F1\n\n{extraction_text.table(results)}\n")
        print(f"## Product pages\n\n{extraction_products.run(data)}")
    if arguments.update_floors:
        new = {
            "text": floors.Floor(data / extraction_text.ARCHIVE, measured["text"]),
            "text-sample": floors.Floor(
                data / extraction_text.ARCHIVE, extraction_text.scores(data, sample=floors.SAMPLE)
            ),
            "products": floors.Floor(data / extraction_products.PAGES, measured["products"]),
        }
        if _raise_floors(new, allow_lower=arguments.allow_lower):
            return 1
    return 1 if measured["text"]["exceptions"] else 0


def _raise_floors(new: Mapping[str, Floor], *, allow_lower: bool) -> int:
    from tests.evaluate import floors

    lowered = floors.update(new, allow_lower=allow_lower)
    if lowered:
        print("Floors not written; these scores are lower than their floor:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in lowered), file=sys.stderr)
        print("Find out why. If it is meant to be so, add --allow-lower.", file=sys.stderr)
        return 1
    return 0


def _models(arguments: argparse.Namespace) -> int:
    from tests.evaluate import model_sets, models

    if (arguments.validation is None) == (arguments.data is None):
        print(
            "Give the labelled folder with --data FOLDER, or a file of your own with --validation.", file=sys.stderr
        )
        return 2
    try:
        if arguments.validation is not None:
            own = model_sets.read_file(
                arguments.validation,
                arguments.task,
                text_column=arguments.text_column,
                label_column=arguments.label_column,
            )
            measured = models.measure_sets(arguments.model, [own], arguments.sample)
        else:
            measured = models.measure(arguments.model, arguments.data, arguments.sample)
    except FileNotFoundError as error:
        print(f"{error.filename} is missing. Give the folder that has it: --data FOLDER.", file=sys.stderr)
        return 2
    except (ValueError, WorkbenchError) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(measured, indent=2, ensure_ascii=False) if arguments.json else models.report(measured))
    if arguments.update_floors:
        if arguments.data is None or arguments.sample is not None:
            print("Floors are made from everything: leave --validation and --sample out.", file=sys.stderr)
            return 2
        quick = models.measure_sets(arguments.model, model_sets.public_sets(arguments.data), models.FLOOR_SAMPLE)
        new = models.floors_of(measured, arguments.data) | models.floors_of(quick, arguments.data)
        return _raise_floors(new, allow_lower=arguments.allow_lower)
    return 0


def _engines(arguments: argparse.Namespace) -> int:
    from tests.evaluate import engine_card, engines, model_sets

    if (arguments.sets is None) == (arguments.data is None):
        print("Give the labelled folder with --data FOLDER, or packed sets with --sets FILE.", file=sys.stderr)
        return 2
    if arguments.answers is None and (arguments.only_read or arguments.only_judge):
        print("Say where the answers are kept: --answers FOLDER.", file=sys.stderr)
        return 2
    try:
        sets = model_sets.unpack(arguments.sets) if arguments.sets else model_sets.gate_sets(arguments.data)
        if arguments.pack is not None:
            model_sets.pack(sets, arguments.pack)
            print(f"Wrote {arguments.pack}. There: python -m tests.evaluate engines --sets {arguments.pack.name}")
            return 0
        if arguments.only_judge:
            reference, found = engines.split_reference(engines.stored(arguments.answers))
        else:
            reference, found = engines.read_engines(
                arguments.model,
                sets,
                precisions=_names(arguments.precision),
                runtime=arguments.runtime,
                engines=_names(arguments.engines),
                keep=arguments.answers,
            )
        if arguments.only_read:
            print(f"Wrote the answers of FP32 and {len(found)} engines to {arguments.answers}.")
            return 0
        judged = engines.judge_engines(reference, found, sets)
    except FileNotFoundError as error:
        print(f"{error.filename} is missing. Give the folder that has it: --data FOLDER.", file=sys.stderr)
        return 2
    except (ValueError, WorkbenchError) as error:
        print(error, file=sys.stderr)
        return 2
    print(engines.report(judged))
    if arguments.card:
        print(f"\nWrote {engine_card.update_card(arguments.model, judged)}.")
    return 0


def _names(text: str) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] or None


def _fit_text(arguments: argparse.Namespace) -> int:
    from tests.evaluate import extraction_text, fit_text

    if not (arguments.data / extraction_text.ARCHIVE).is_file():
        print(
            f"{arguments.data / extraction_text.ARCHIVE} is missing. Give its folder: --data FOLDER.", file=sys.stderr
        )
        return 2
    print(f"Wrote {fit_text.fit(arguments.data)}. Now measure: python -m tests.evaluate extraction --data FOLDER")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one measurement; the exit code is 0 when it ran, and no page raised, 2 when the data is not there."""
    parser = argparse.ArgumentParser(prog="python -m tests.evaluate", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    extraction = commands.add_parser("extraction", help="main text by page type, and product pages")
    extraction.add_argument("--data", type=Path, required=True, help="folder with web/wcxb_dev.tar.xz")
    extraction.add_argument("--json", action="store_true", help="print scores as JSON")
    extraction.add_argument("--skip-peer", action="store_true", help="do not run plain trafilatura beside it")
    extraction.add_argument("--update-floors", action="store_true", help="make these scores the gate's floors")
    extraction.add_argument("--allow-lower", action="store_true", help="let --update-floors lower a floor")
    extraction.set_defaults(run=_extraction)

    fitting = commands.add_parser("fit-text", help="fit the weights that choose a page's content blocks")
    fitting.add_argument("--data", type=Path, required=True, help="folder with web/wcxb_dev.tar.xz")
    fitting.set_defaults(run=_fit_text)

    reading = commands.add_parser("models", help="a model folder on labelled texts: accuracy, calibration, F1")
    reading.add_argument("--data", type=Path, help="folder with text/sentiment_zh_shopping.parquet and the others")
    reading.add_argument("--model", type=Path, default=_BUNDLED, help="model folder; default: engines/reviews")
    reading.add_argument("--json", action="store_true", help="print metrics.<set>.<name> as JSON")
    reading.add_argument("--sample", type=int, metavar="N", help="at most N texts a set, always the same ones")
    reading.add_argument("--validation", type=Path, metavar="FILE", help="measure on this CSV, JSONL or Parquet only")
    reading.add_argument("--task", choices=TASKS, default="sentiment", help="what --validation is labelled for")
    reading.add_argument("--text-column", default="text", help="column of texts in --validation")
    reading.add_argument("--label-column", help="column of labels in --validation; default: label, labels, entities")
    reading.add_argument("--update-floors", action="store_true", help="make these scores the gate's floors")
    reading.add_argument("--allow-lower", action="store_true", help="let --update-floors lower a floor")
    reading.set_defaults(run=_models)

    judging = commands.add_parser("engines", help="the engines of a model beside FP32: accuracy, with a verdict")
    judging.add_argument("--data", type=Path, help="folder with text/sentiment_zh_shopping.parquet and the others")
    judging.add_argument("--sets", type=Path, metavar="FILE", help="what --pack wrote, in place of --data")
    judging.add_argument("--pack", type=Path, metavar="FILE", help="write the sets for --sets, and stop")
    judging.add_argument("--model", type=Path, default=_BUNDLED, help="model folder; default: engines/reviews")
    judging.add_argument("--precision", default="", help="of the engines, with commas; default: all")
    judging.add_argument("--runtime", help="of the engines; default: all that run here")
    judging.add_argument("--engines", default="", help="ids, or beginnings of them, with commas; default: all")
    judging.add_argument("--answers", type=Path, metavar="FOLDER", help="keep what each engine said; read it once")
    judging.add_argument("--only-read", action="store_true", help="stop when --answers are written")
    judging.add_argument(
        "--only-judge", action="store_true", help="judge what lies in --answers; no engine is needed"
    )
    judging.add_argument("--card", action="store_true", help="write the verdicts into the model's model.toml")
    judging.set_defaults(run=_engines)

    parsed = parser.parse_args(arguments)
    return int(parsed.run(parsed))


if __name__ == "__main__":
    sys.exit(main())
