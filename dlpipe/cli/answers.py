"""`dlpipe answers`: the latest answer for each row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlpipe.cli.printing import as_json, say, say_rows

if TYPE_CHECKING:
    import pyarrow as pa


@click.command()
@click.argument("table")
@click.option(
    "--model", metavar="URI", help="Only answers of this model version, such as reviews/3; by default of any."
)
@click.option("--source", metavar="TABLE", help="Only answers for rows of this table.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write to instead, whose name ends with .csv, .jsonl or .parquet.",
)
@as_json
def answers(table: str, model: str | None, source: str | None, output: Path | None, json_: bool) -> None:
    """Print the latest prediction for each row.

    TABLE is a table of predictions, or of a pipeline's answers.

    \b
    Examples:
      dlpipe answers reviews_predictions
      dlpipe answers reviews_predictions --model reviews/1 --output answers.csv
    """
    from dlpipe.inference import read_latest_answers
    from dlpipe.tables import check_row_file, locate, table_at, write_row_file

    if output:
        check_row_file(output, overwrite=True)
    there = table_at(table)
    found = read_latest_answers(there, model=model and find_uri(model), source=source and locate(source))
    if output:
        with write_row_file(output, found.schema, overwrite=True) as writer:
            for batch in found.to_batches():
                writer.write(batch)
        say(f"{there}: {len(found):,} rows in {output}")
        return
    shown = found.column_names if json_ else list_columns_to_show(found.schema)
    say_rows(found.select(shown).to_pylist(), json_=json_, nothing="")


def list_columns_to_show(schema: pa.Schema) -> list[str]:
    """Return the columns that a person reads: whose answer it is, what is predicted, by which model and when.

    What is predicted stands before the model; of its lists, only ``predicted`` itself is short.
    """
    import pyarrow as pa

    before = schema.names[: schema.names.index("model_version")]
    short = [name for name in before if name == "predicted" or not pa.types.is_nested(schema.field(name).type)]
    return [*short, "model_version", "scored_at"]


def find_uri(model: str) -> str:
    """Return the URI of the version that is meant; a number need not be in the registry any more."""
    from dlpipe.registry import resolve
    from dlpipe.registry.versions import parse_uri

    name, version, _ = parse_uri(model)
    return f"models:/{name}/{version}" if version is not None else resolve(model).uri
