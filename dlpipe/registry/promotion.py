"""Promotion: moving the alias ``champion`` of a classifier and of its companions as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from dlpipe.errors import ChampionMoved, PromotionRefused
from dlpipe.registry.descriptions import record_verdict
from dlpipe.registry.families import find_companions
from dlpipe.registry.history import How, list_earlier_champions, read_moves, record_move
from dlpipe.registry.moving import Move, move_alias
from dlpipe.registry.names import CHALLENGER, CHAMPION, MADE_FROM, classifier_name
from dlpipe.registry.verdicts import Judgement
from dlpipe.registry.versions import ModelVersion, find_champion, list_version_numbers, read_aliases, read_version
from dlpipe.tracking import open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRIES = 20  # another champion each time


AnyJudgement = TypeVar("AnyJudgement", bound=Judgement)


@dataclass(frozen=True)
class Promotion:
    """What ``promote`` did.

    Attributes
    ----------
    version : ModelVersion
        The candidate, with the aliases it has now.
    moved : bool
        Whether the alias ``champion`` moved.
    previous : int or None
        The version that was champion before.
    companions : mapping of model name to version
        What moved with it; ``None`` for a companion that has no champion any more.
    """

    version: ModelVersion
    moved: bool
    previous: int | None
    companions: Mapping[str, int | None] = field(default_factory=dict)

    def __str__(self) -> str:
        before = "none" if self.previous is None else f"v{self.previous}"
        if self.moved:
            bare = self._describe_bare()
            return f"champion of {self.version.name} moves from {before} to v{self.version.version}{bare}"
        if self.previous == self.version.version:
            return f"champion of {self.version.name} is {before} already"
        return f"champion of {self.version.name} stays {before}"

    def _describe_bare(self) -> str:
        without = [name for name, version in self.companions.items() if version is None]
        return f"; without a champion from now on: {', '.join(without)}" if without else ""


def promote(
    version: ModelVersion,
    *,
    verdict_passed: bool = True,
    against: int | Literal["any"] | None = "any",
    how: How = "force",
    who: str = "",
    why: str = "",
    bare: bool = False,
) -> Promotion:
    """Point ``champion`` at ``version`` and its companions, as one, and return what happened.

    Nothing moves when the verdict says no. If ``version`` is champion already, companions that lag behind move.

    Parameters
    ----------
    version : ModelVersion
        A classifier; or a companion of the champion, such as a pipeline with other settings, which moves alone.
    verdict_passed : bool, optional
        Whether the gate let it pass.
    against : int or None, optional
        The champion that the verdict was about, ``None`` for none; by default any.
    how, who, why : str
        Recorded with the time in a tag of the registered model. By default ``who`` is the current user.
    bare : bool, optional
        A companion that has a champion, and nothing that was made from ``version``, has none from then on.

    Raises
    ------
    ChampionMoved
        When another version is champion than ``against``; nothing was moved.
    PromotionRefused
        When there is such a companion and ``bare`` is not set, or ``version`` is a companion itself and its
        classifier is not champion; nothing was moved.
    """
    store = open_store()
    with tracking_errors(store), store.lock("champion", version.name):
        client = store.client()
        registered = client.get_registered_model(version.name)
        there = registered.aliases.get(CHAMPION)
        previous = None if there is None else int(there)
        # a version that is champion already was promoted by an earlier try: going on completes its companions
        if previous not in (version.version, against) and against != "any":
            raise make_moved_error(version, previous)
        if not verdict_passed and previous != version.version:
            return Promotion(read_version(client, version.name, version.version), False, previous)
        beside = plan_companions(client, version, bare=bare)
        earlier = read_moves(registered.tags)
        record = record_move(previous, version.version, how=how, who=who, why=why).to_tag(earlier)
        moved = previous != version.version
        move = Move(CHAMPION, {version.name: version.version, **beside}, record if moved else None)
        if not move_alias(client, move, expected=previous):
            raise make_moved_error(version, read_aliases(client, version.name).get(CHAMPION))
        return Promotion(read_version(client, version.name, version.version), moved, previous, beside)


def judge_and_promote(
    version: ModelVersion,
    judge: Callable[[ModelVersion | None], AnyJudgement],
    *,
    how: How = "gate",
    who: str = "",
    why: str = "",
) -> tuple[AnyJudgement, Promotion]:
    """Judge ``version`` against the champion, promote it if it passes, and return the verdict and the promotion.

    Judging takes minutes, so it is done without a lock: if another version became champion meanwhile, ``version``
    is judged again, against that one. What the gate said stands in a tag and in the description of the version
    before the alias moves.

    Parameters
    ----------
    version : ModelVersion
    judge : callable
        Gets the champion (``None`` if there is none, or it is ``version`` itself) and returns the verdict.
    how, who : str, optional
        As in ``promote``.
    why : str, optional
        By default the reason of the verdict.

    Raises
    ------
    ChampionMoved
        When another version became champion each of ``TRIES`` times.
    PromotionRefused
        As in ``promote``.
    """
    for _ in range(TRIES):
        rival = find_champion(version.name)
        is_champion = rival is not None and rival.version == version.version
        verdict = judge(None if is_champion else rival)
        # a champion is judged alone, and what the gate said of it beside the one before is worth more
        record_judgement(version, verdict, unless_known=is_champion)
        try:
            done = promote(
                version,
                verdict_passed=verdict.passed,
                against=None if rival is None else rival.version,
                how=how,
                who=who,
                why=why or verdict.reason,
            )
        except ChampionMoved:
            continue
        return verdict, done
    raise ChampionMoved(f"{version.uri} was judged {TRIES} times, and each time another version became champion.")


def record_judgement(version: ModelVersion, verdict: Judgement, *, unless_known: bool) -> None:
    """Keep what the gate said of ``version``.

    Parameters
    ----------
    version : ModelVersion
    verdict : Judgement
    unless_known : bool
        Keep what it said before, if it did.
    """
    store = open_store()
    with tracking_errors(store):
        record_verdict(store.client(), version.name, version.version, verdict, unless_known=unless_known)


def make_moved_error(version: ModelVersion, now: int | None) -> ChampionMoved:
    """Return the error that another version than the one ``version`` was judged against is champion."""
    there = "none" if now is None else f"v{now}"
    return ChampionMoved(f"The champion of {version.name!r} is {there} meanwhile; {version.uri} was not promoted.")


def plan_companions(client: MlflowClient, version: ModelVersion, *, bare: bool) -> dict[str, int | None]:
    """Return the companions that move with ``version``, by model name, and where to (``None``: the alias goes).

    Parameters
    ----------
    client : MlflowClient
    version : ModelVersion
    bare : bool
        As in ``promote``.

    Raises
    ------
    PromotionRefused
        As in ``promote``.
    """
    if made_from := version.tags.get(MADE_FROM):
        check_classifier_is_champion(client, version, made_from)
        return {}
    beside: dict[str, int | None] = {}
    for name, made in find_companions(client, version).items():
        if made is not None:
            beside[name] = made.version
        elif (there := read_aliases(client, name).get(CHAMPION)) is not None:
            beside[name] = None
            if not bare:
                raise PromotionRefused(
                    f"No version of {name!r} was made from {version.uri}, and its champion v{there} would go on. "
                    f"Register one first, or use --force: {name!r} has no champion then."
                )
    return beside


def check_classifier_is_champion(client: MlflowClient, version: ModelVersion, made_from: str) -> None:
    """Raise ``PromotionRefused`` unless ``made_from``, the URI of the classifier of ``version``, is champion."""
    base = classifier_name(version.name)
    there = read_aliases(client, base).get(CHAMPION) if base else None
    if made_from != f"models:/{base}/{there}":
        raise PromotionRefused(
            f"{version.uri} was made from {made_from}, which is not the champion. "
            f"Promote that, and what is made from it moves along: dlpipe models promote {made_from}."
        )


def challenge(classifier: ModelVersion, beside: Sequence[ModelVersion]) -> list[ModelVersion]:
    """Point ``challenger`` at ``classifier`` and its companions ``beside`` it, as one, and return them with it."""
    store = open_store()
    family = [classifier, *beside]
    with tracking_errors(store):
        client = store.client()
        move = Move(CHALLENGER, {version.name: version.version for version in family})
        # the last one to register is challenger, so losing a race is no reason to stop
        while not move_alias(client, move, expected=read_aliases(client, classifier.name).get(CHALLENGER)):
            pass
        return [read_version(client, version.name, version.version) for version in family]


def find_earlier_champion(name: str) -> ModelVersion:
    """Return the version of ``name`` that was champion before the present one, and still exists.

    Raises
    ------
    ModelNotFound
        When there is no such model.
    PromotionRefused
        When there is none, or nothing tells which it was.
    """
    if (model := name.removeprefix("models:/").replace("@", "/").partition("/")[0]) != name:
        raise PromotionRefused(
            f"{name!r} is a version, and a model goes back. Pass the model's name alone: {model}."
        )
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        read_aliases(client, name)
        current = find_champion(name)
        if current is None:
            raise PromotionRefused(
                f"{name!r} has no champion to go back from. `dlpipe models` lists the versions."
            )
        moves = read_moves(client.get_registered_model(name).tags)
        there = list_version_numbers(client, name)
        earlier = list_earlier_champions(moves, current.version)
        before = next((version for version in earlier if version in there), None)
        if before is None:
            others = [version for version in there if version != current.version]
            raise PromotionRefused(
                f"Nothing tells which version of {name!r} was champion before v{current.version}. "
                + (
                    f"Name one: dlpipe models promote {name}/{others[0]}."
                    if others
                    else "It has no other version."
                )
            )
        return read_version(client, name, before)
