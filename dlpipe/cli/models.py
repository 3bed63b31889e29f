"""`dlpipe models`: the versions that there are, and which is champion."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import OneLineErrors, as_json, say, say_rows
from dlpipe.errors import PromotionRefused

if TYPE_CHECKING:
    from dlpipe.registry import ModelVersion
    from dlpipe.registry.history import How

by = click.option("--who", default="", help="Who makes the change, for its record.  [default: you]")
because = click.option("--why", default="", help="Reason of the change, for its record.")


class ModelCommands(OneLineErrors):
    """The commands of `dlpipe models`, which says how to name a model where a command was expected."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is asked for."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            words = f"{error.message} To show a model: dlpipe models show {args[0]}"
            raise click.UsageError(words, error.ctx) from None


@click.group(cls=ModelCommands, invoke_without_command=True)
@as_json
@click.pass_context
def models(context: click.Context, json_: bool) -> None:
    """List registered model versions, show one, or change the champion.

    Each version has its aliases, its score on the test split, its engine and the table version that it learnt
    from.

    \b
    Examples:
      dlpipe models
      dlpipe models --json
      dlpipe models show reviews@champion
    """
    if context.invoked_subcommand is None:
        say_rows(describe_versions(), json_=json_, nothing="No model is registered yet: run flows/train_flow.py.")


def describe_versions() -> list[dict[str, Any]]:
    """Return what there is to say of every version, the metric that its task puts first among it."""
    from dlpipe.registry import MADE_FROM, format_source, list_versions
    from dlpipe.task import ENGINE

    found = list_versions()
    headlines = dict.fromkeys([find_headline(version.task) for version, _ in found])
    return [
        {
            "model": version.name,
            "version": version.version,
            "aliases": list(version.aliases),
            **{name: metrics.get(f"test_{name}") for name in headlines},
            "engine": version.tags.get(ENGINE, None if MADE_FROM in version.tags else "torch"),
            "table": format_source(version.tags),
            "weights": version.digest[:12],
            "uri": version.uri,
        }
        for version, metrics in found
    ]


def find_headline(task: str) -> str:
    """Return the metric that ``task`` puts first; that of the default task where it is not installed."""
    from dlpipe.task import DEFAULT_TASK, find_task, list_tasks

    return find_task(task if task in list_tasks() else DEFAULT_TASK).target.headline


@models.command()
@click.argument("uri", metavar="VERSION")
@click.option("--force", is_flag=True, help="Do it without asking the gate.")
@by
@because
@as_json
def promote(uri: str, force: bool, who: str, why: str, json_: bool) -> None:
    """Make VERSION champion, if the gate passes it.

    The pipeline and the explainer that were made from it follow. The gate is that of the run that registered
    VERSION: its settings, on the test rows of its table version, against the baseline and the present
    champion.

    \b
    Examples:
      dlpipe models promote reviews/1 --why "reads irony better"
      dlpipe models promote reviews/1 --why "reads irony better" --force
    """
    from dlpipe.registry import resolve

    move(resolve(uri), how="gate", force=force, who=who, why=why, json_=json_)


@models.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Do it without asking the gate.")
@by
@because
@as_json
def rollback(name: str, force: bool, who: str, why: str, json_: bool) -> None:
    """Make the previous champion of the model NAME champion again.

    The pipeline and the explainer that were made from it follow. It passes the same gate as in `promote`: a
    version that is worse than the present champion needs --force.

    \b
    Example:
      dlpipe models rollback films --why "the new one misreads irony" --force
    """
    from dlpipe.registry import find_earlier_champion

    move(find_earlier_champion(name), how="rollback", force=force, who=who, why=why, json_=json_)


@models.command()
@click.argument("uri", metavar="VERSION")
@click.option("--force", is_flag=True, help="Delete it even if it is champion.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@by
@because
@as_json
def delete(uri: str, force: bool, yes: bool, who: str, why: str, json_: bool) -> None:
    """Delete VERSION from the registry.

    First it names what depends on it: tables that it computed, deployments that work with it. The pipeline and the
    explainer that were made from it are deleted, too. Its run and its files stay in MLflow, until `mlflow gc`.

    \b
    Example:
      dlpipe models delete reviews/1 --why "trained on leaked rows" --yes
    """
    from dlpipe.cli.dependents import confirm_deletion, find_model_dependents
    from dlpipe.registry import delete_version, list_deleted, resolve

    version = resolve(uri)
    whole = [member.uri for member in list_deleted(version, force=force)]
    confirm_deletion(", ".join(whole), find_model_dependents(set(whole)), yes=yes, many=len(whole) > 1)
    gone = [member.uri for member in delete_version(version, force=force, who=who, why=why)]
    say(json.dumps({"deleted": gone}) if json_ else f"{', '.join(gone)} deleted")


def move(version: ModelVersion, *, how: How, force: bool, who: str, why: str, json_: bool) -> None:
    """Make ``version`` champion, by its gate or by force, and print what came of it.

    Parameters
    ----------
    version : ModelVersion
        One that is registered.
    how : How
        What the move is noted as.
    force : bool
        Whether no gate is asked.
    who : str
        Noted with the move.
    why : str
        Noted with the move.
    json_ : bool
        Print JSON for a program instead of a line.

    Raises
    ------
    PromotionRefused
        When the gate does not let it pass.
    """
    from dlpipe.registry import KIND, judge_and_promote, promote

    reason = "not judged" if force else "not judged: its classifier was, and is champion"
    if force or KIND in version.tags:  # a companion is champion by its classifier alone
        done = promote(version, how="force" if how == "gate" else how, who=who, why=why, bare=force)
    else:
        from dlpipe.evaluation import prepare_judge

        verdict, done = judge_and_promote(version, prepare_judge(version), how=how, who=who, why=why)
        reason = verdict.reason
        if not verdict.passed and done.previous != version.version:
            raise PromotionRefused(f"{reason}; {done}. --force asks no gate.")
    facts = {"model": version.name, "version": version.version, "champion_before": done.previous, "gate": reason}
    say(json.dumps({**facts, "moved": done.moved}) if json_ else f"{reason}; {done}")
