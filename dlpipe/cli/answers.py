"""`dlpipe answers`: the latest answer for each row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import as_json, say, say_rows
from dlpipe.errors import SettingError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".csv", ".jsonl", ".parquet")


@click.command()
@click.argument("table")
@click.option(
    "--model", metavar="URI", help="Only answers of this model version, such as reviews/3; by default of any."
)
@click.option("--source", metavar="TABLE", help="Only answers for rows of this table.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file instead: .csv, .jsonl or .parquet.",
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
    from dlpipe.tables import locate, table_at

    if output and output.suffix not in FORMATS:
        raise SettingError(
            f"--output {output} has no known format. Name a file that ends with {', '.join(FORMATS)}."
        )
    there = table_at(table)
    found = read_latest_answers(there, model=model and find_uri(model), source=source and locate(source))
    if output:
        try:
            write_rows(found, output)
        except OSError as error:
            told = error.strerror or str(error)
            raise SettingError(
                f"--output {output} cannot be written: {told}. Name a file where you may."
            ) from None
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


def write_rows(rows: pa.Table, file: Path) -> None:
    """Write ``rows`` to a file of the format that its name says; lists are JSON in a CSV."""
    import json

    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(rows, file)
        return
    frame: Any = rows.to_pandas()
    if file.suffix == ".jsonl":
        file.write_text("".join(f"{json.dumps(row, default=str)}\n" for row in rows.to_pylist()))
        return
    import pyarrow as pa

    for field in rows.schema:
        if pa.types.is_nested(field.type):
            values = frame[field.name]
            frame[field.name] = [
                None if value is None else json.dumps(list(map(_to_plain, value))) for value in values
            ]
    frame.to_csv(file, index=False)


def _to_plain(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)
