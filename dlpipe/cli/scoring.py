"""`dlpipe score`: the rows of a file with their predictions, as another file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dlpipe.cli.appending import read_pair
from dlpipe.cli.printing import as_json, say


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "uri",
    required=True,
    metavar="URI",
    help="Model or pipeline, such as models:/reviews@champion, reviews/3, or reviews for its champion.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write, whose name ends with .csv, .jsonl or .parquet.",
)
@click.option(
    "--text-column", metavar="NAME", help="Column with the text; by default text, or the one of the training."
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="COLUMN=NAME",
    help="Name that a column of the model has in FILE; may be repeated.",
)
@click.option("--skip-bad", is_flag=True, help="Write rows that cannot be scored without a prediction.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
@click.option(
    "--engine",
    help="Engine to predict with: torch, torch-bf16, onnx or onnx-int8; by default the model's own choice.",
)
@click.option(
    "--batch-rows",
    type=click.IntRange(1, 1_000_000),
    default=4096,
    show_default=True,
    help="Rows that are held in memory at a time.",
)
@click.option(
    "--separator", metavar="CHAR", help="Separator of a CSV: a character, or tab; by default it is found."
)
@click.option("--encoding", metavar="NAME", help="Encoding of a text file, such as cp1252; by default UTF-8.")
@as_json
def score(
    file: Path,
    uri: str,
    output: Path,
    text_column: str | None,
    columns: tuple[str, ...],
    skip_bad: bool,
    overwrite: bool,
    engine: str | None,
    batch_rows: int,
    separator: str | None,
    encoding: str | None,
    json_: bool,
) -> None:
    """Write the rows of FILE with their predictions to another file.

    Both are CSV, JSON Lines or Parquet, by their endings. All columns stay, in their order; the predictions follow
    them. The output gets its name when it is whole. A row without a text is an error that names its line; a
    pipeline gives it a status instead.

    \b
    Examples:
      dlpipe score --model reviews test.csv --output scored.csv
      dlpipe score --model reviews-pipeline test.csv --output scored.parquet --batch-rows 1000
    """
    from dlpipe.inference import score_file
    from dlpipe.registry import resolve
    from dlpipe.tables import TableSettings

    named = dict(map(read_pair, columns))
    done = score_file(
        file,
        output,
        model=resolve(uri),
        engine=engine,
        columns={**named, **({"text": text_column} if text_column else {})},
        settings=TableSettings(separator=separator or "", encoding=encoding or ""),
        skip_bad=skip_bad,
        overwrite=overwrite,
        batch_rows=batch_rows,
        say=lambda line: say(line, err=True),
    )
    if done.note:
        say(f"{done.note}; they are written without a prediction.", err=True)
    if json_:
        facts = {"model": done.model.uri, "file": str(file), "output": str(output), "rows": done.rows}
        say(json.dumps({**facts, "rows_without_prediction": done.bad_rows}))
    else:
        say(f"{done.rows:,} row{'' if done.rows == 1 else 's'} with predictions of {done.model.uri} in {output}")
