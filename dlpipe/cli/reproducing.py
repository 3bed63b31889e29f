"""`dlpipe reproduce`: a registered model made again from its lineage, and compared."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from dlpipe.cli.printing import as_json, say

if TYPE_CHECKING:
    from dlpipe.reproducing import Changes, Reproduction

FAILED = 1
"""The exit code of an audit in which a version could not be trained again."""


@click.command()
@click.argument("uri", metavar="MODEL", required=False)
@click.option("--all", "all_", is_flag=True, help="Every version in the registry that a flow trained, one by one.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Torch threads; by default as many as the training had."
)
@click.option(
    "--version", "rows", type=click.IntRange(min=0), help="Another version of its table; by default its own."
)
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="Another setting of the training; repeatable."
)
@click.option(
    "--code",
    type=click.Choice(["kept", "here"]),
    default="kept",
    show_default=True,
    help="Train with the code that its run kept, or with what is installed here.",
)
@as_json
@click.pass_context
def reproduce(
    context: click.Context,
    uri: str | None,
    all_: bool,
    threads: int | None,
    rows: int | None,
    changes: tuple[str, ...],
    code: Literal["kept", "here"],
    json_: bool,
) -> None:
    """Train a registered model again, as it was trained, and compare the weights.

    MODEL is a version, such as reviews@champion or reviews/3, or a table of predictions or explanations, whose
    models are meant. Code, rows, settings, seed and threads are those of its training; nothing of yours is
    written. What is not as it was (a package, the processor, what an option changed) is named. The answers of a
    table are computed again with the registered model, and compared.

    Exit code 0: the same weights, bit for bit. 3: equivalent: computed elsewhere, with a score in the registered
    one's interval. 4: different, or other answers. 1: something could not be made again.

    \b
    Example:
      dlpipe reproduce reviews@champion
    """
    from dlpipe.reproducing import Changes, compare_answers, list_models, list_trained, reproduce

    if uri and all_:
        raise click.UsageError("Name a model or pass --all, not both.")
    if not uri and not all_:
        raise click.UsageError("Name a model, or pass --all.")
    asked = Changes(threads=threads, rows=rows, settings=dict(map(split_change, changes)), code=code)
    found = list_models(uri) if uri else [version.uri for version in list_trained()]
    if uri and len(found) == 1:
        with unwinding():
            done = reproduce(found[0], changes=asked, say=lambda line: say(f"  {line}", err=True))
            answers = list(compare_answers(uri, found)) if is_answers(uri, found) else []
        told = [each.to_plain() for each in answers]
        plain = {**done.to_plain(), **({"answers": told} if told else {})}
        say(json.dumps(plain, indent=2) if json_ else "\n".join([*describe(done), *map(str, answers)]))
        context.exit(combine_codes([done.exit_code, *(each.exit_code for each in answers)]))
    codes, records = [], []
    for each in found:
        with unwinding():
            record, exit_code = reproduce_or_say_why(each, asked)
        codes.append(exit_code)
        records.append(record)
        if not json_:
            say(f"{record['outcome']:<10}  {each}{'  ' + record['why'] if record['why'] else ''}")
    with unwinding():
        for answer in compare_answers(uri, found) if uri else ():
            codes.append(answer.exit_code)
            records[found.index(answer.model)].setdefault("answers", []).append(answer.to_plain())
            if not json_:
                say(answer)
    if json_:
        say(json.dumps(records, indent=2))
    elif not records:
        say("No version in the registry was trained by a flow.", err=True)
    context.exit(combine_codes(codes))


def is_answers(asked: str, found: list[str]) -> bool:
    """Return whether models were found by a table that has answers of them."""
    from dlpipe.errors import ModelNotFound
    from dlpipe.registry import resolve

    try:
        return resolve(asked).uri not in found
    except ModelNotFound:
        return True


def combine_codes(codes: list[int]) -> int:
    """Return the exit code of several.

    Examples
    --------
    >>> combine_codes([0, 4, 3]), combine_codes([4, 1]), combine_codes([])
    (4, 1, 0)
    """
    return FAILED if FAILED in codes else max(codes, default=0)


@contextmanager
def unwinding() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the block as Ctrl-C does: the training is killed and its folder removed."""

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def reproduce_or_say_why(uri: str, asked: Changes) -> tuple[dict[str, Any], int]:
    """Return what came of one version, and its exit code; one that cannot be trained again stops no other."""
    from dlpipe.errors import DlpipeError
    from dlpipe.reproducing import reproduce

    try:
        done = reproduce(uri, changes=asked)
    except DlpipeError as error:
        return {"model": uri, "outcome": "failed", "why": str(error)}, FAILED
    return {**done.to_plain(), "why": "; ".join(map(str, done.differences))}, done.exit_code


def split_change(text: str) -> tuple[str, str]:
    """Return name and value of ``NAME=VALUE``; ``training.NAME`` is taken, too."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise click.UsageError(f"--set {text!r} is no change of a setting: write NAME=VALUE, such as seed=1.")
    return name.removeprefix("training."), value


def describe(done: Reproduction) -> Iterator[str]:
    """Yield what came of a training as lines: the outcome first."""
    registered, weights = done.version.digest[:12], done.weights[:12]
    words = {
        "same": f"The same weights, bit for bit: {weights}",
        "equivalent": f"Equivalent: other weights ({weights}, registered {registered}), computed elsewhere",
        "different": f"Different weights: {weights}, registered {registered}",
    }
    yield f"{words[done.outcome]}."
    yield ""
    yield "What is not as it was:" if done.differences else "Nothing that was recorded is otherwise."
    yield from (f"  {found}" for found in done.differences)
    yield from (f"note: {note}" for note in done.notes)
    yield ""
    yield f"model     {done.version.uri}, trained by {done.origin.training}"
    yield f"rows      {done.origin.table}"
    yield f"code      {done.code}"
    yield f"took      {done.seconds:.0f} s"
    yield from describe_distance(done)


def describe_distance(done: Reproduction) -> Iterator[str]:
    """Yield how far the model is from the registered one, a line each; nothing for the same weights."""
    for name, (then, now) in done.scores.items():
        low, high = done.interval
        known = name == done.metric and low <= high
        yield f"{name:<9} {now:.4f}, registered {then:.4f}" + (
            f", registered interval {low:.4f} to {high:.4f}" if known else ""
        )
    if done.apart is None:
        return
    if done.apart.weight >= 0:
        yield (
            f"weights   differ by at most {done.apart.weight:.2g}; the norm of the difference is "
            f"{done.apart.norm:.2g} of theirs"
        )
    if done.apart.output >= 0:
        yield (
            f"outputs   differ by at most {done.apart.output:.2g} on a test row; {done.apart.agreement:.2%} of "
            "these rows are decided alike"
        )
