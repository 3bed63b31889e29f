"""A trained model becomes versions in the registry, which the gate may make champions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaflow import current
from metaflow.metaflow_git import get_repository_info
from metaflow.packaging_sys import MetaflowCodeContent

from dlpipe.flows.data import check_data
from dlpipe.flows.life_cycle import find_folder
from dlpipe.terminal import make_visible

if TYPE_CHECKING:
    from dlpipe.evaluation import Evaluation, Rival, Verdict
    from dlpipe.flows.settings import TrainFlowSettings
    from dlpipe.registry import ModelVersion, Promotion
    from dlpipe.tables import TableVersion
    from dlpipe.task import EngineChoice, Model, TrainingSettings


@dataclass(frozen=True)
class Registered:
    """The versions of a model and of what its task lets be made from it, its engines and the gate's verdict.

    Attributes
    ----------
    rival : Rival or None
        The champion that it was judged beside.
    """

    classifier: ModelVersion
    pipeline: ModelVersion | None
    explainer: ModelVersion | None
    engines: EngineChoice | None
    verdict: Verdict
    promotion: Promotion
    rival: Rival | None = None

    def __str__(self) -> str:
        engines = self.engines or "engine torch"
        return make_visible(f"{engines}\n{self.classifier.uri}: {self.verdict.reason}\n{self.promotion}")


def make_attempt_tags() -> dict[str, str]:
    """Return the tags that name the task attempt of the current step."""
    return {"metaflow.pathspec": current.pathspec, "metaflow.attempt": str(current.retry_count)}


def make_code_tags(flow: Any) -> dict[str, str]:
    """Return the tags that name the commit of a flow's code."""
    # code that an orchestrator has frozen carries the commit that it is of; its folder is no repository
    code = MetaflowCodeContent.get_info() or get_repository_info(find_folder(flow))
    return {
        "git.commit": code.get("commit_sha") or "unknown",
        "git.uncommitted": str(code.get("has_uncommitted_changes", "unknown")).lower(),
    }


def make_data_tags(rows: TableVersion) -> dict[str, str]:
    """Return the tags that name a version of a table."""
    return {"delta.table": rows.path, "delta.version": str(rows.version), "delta.digest": rows.digest}


def register_and_judge(
    model: Model,
    *,
    rows: TableVersion,
    evaluation: Evaluation,
    baseline: Evaluation,
    training: TrainingSettings,
    settings: TrainFlowSettings,
    tags: Mapping[str, str],
) -> Registered:
    """Register ``model`` with its engines, pipeline and explainer; promote all of them if the gate says so.

    Parameters
    ----------
    rows : TableVersion
        What it was trained and evaluated on: the engines are compared on its valid split, the champion is scored
        on its test split.
    evaluation, baseline : Evaluation
        Of the model and of the plain model, on the same test rows.
    training : TrainingSettings
        With what it was trained.
    tags : mapping
        What else the version names, such as ``make_attempt_tags`` and ``make_code_tags``.
    """
    from dlpipe.evaluation import judge, make_gate_tag
    from dlpipe.registry import KIND, judge_and_promote, log_and_register, register_family, resolve
    from dlpipe.tables import read_table
    from dlpipe.task import find_task

    inputs = find_task(model.task).inputs
    columns = list(inputs.find_columns(rows, model.card))
    example = inputs.read_rows(read_table(rows, split="test", columns=columns)[:2])
    valid = read_table(rows, split="valid", columns=[*columns, "label"])
    served = inputs.export_engines(model, inputs.read_rows(valid), valid["label"].to_pylist())
    engine_tags = served.engines.tags() if served.engines else {}
    lineage = {**tags, **make_data_tags(rows), "seed": str(training.seed)}
    shared: dict[str, Any] = {"example": example, "challenger": False}
    classifier, *companions = register_family(
        settings.registry.model,
        lambda: log_and_register(
            served,
            name=settings.registry.model,
            params=vars(training),
            scores={"test": evaluation, "baseline": baseline},
            tags={**lineage, **make_gate_tag(settings.gate), **engine_tags},
            **shared,
        ),
        [*_list_companions(model, settings, shared)],
    )

    rivals: list[Rival | None] = []

    def judge_beside(champion: ModelVersion | None) -> Verdict:
        rivals.append(find_rival(champion, model, rows, evaluation, seed=training.seed))
        target = settings.task.target
        return judge(evaluation, baseline=baseline, champion=rivals[-1], thresholds=settings.gate, target=target)

    verdict, promotion = judge_and_promote(classifier, judge_beside, who=current.username)
    # resolved again: promotion has moved their aliases
    kinds = {version.tags[KIND]: resolve(version.uri) for version in companions}
    return Registered(
        classifier=promotion.version,
        pipeline=kinds.get("pipeline"),
        explainer=kinds.get("explainer"),
        engines=served.engines,
        verdict=verdict,
        promotion=promotion,
        rival=rivals[-1] if rivals else None,
    )


def _list_companions(
    model: Any, settings: TrainFlowSettings, shared: Mapping[str, Any]
) -> Iterator[Callable[[ModelVersion], ModelVersion]]:
    """Yield what registers a pipeline and an explainer, where the task's inputs allow for one."""
    from dlpipe.explain import register_explainer
    from dlpipe.inference import register_pipeline
    from dlpipe.task import find_task

    inputs = find_task(model.task).inputs
    if inputs.is_single_text:
        yield lambda made: register_pipeline(made, settings=settings.pipeline, **shared)
    if not inputs.not_explained:
        yield lambda made: register_explainer(made, model, settings=settings.explanation, **shared)


def find_rival(
    champion: ModelVersion | None, model: Model, rows: TableVersion, evaluation: Evaluation, *, seed: int
) -> Rival | None:
    """Return ``champion`` scored on the test rows of a model; ``None`` where there is none yet.

    Parameters
    ----------
    champion : ModelVersion, optional
    model : Model
        The candidate.
    rows : TableVersion
    evaluation : Evaluation
        Of the candidate on the test rows.
    seed : int
        Of the bootstrap.
    """
    from dlpipe.evaluation import evaluate_champion
    from dlpipe.task import find_task, open_predictor

    if champion is None:
        return None
    return evaluate_champion(
        champion,
        rows,
        candidate=evaluation,
        open_candidate=lambda: open_predictor(model),
        task=find_task(model.task),
        seed=seed,
    )


def check_training(settings: TrainFlowSettings, *, retrain: bool = False) -> None:
    """See that names, languages, backbone, sources and the tables of answers are good, before a run begins."""
    from dlpipe.explain import make_explanation_schema
    from dlpipe.inference import check_languages, make_prediction_schema
    from dlpipe.registry import check_name_free
    from dlpipe.tables import check_target

    check_name_free(settings.registry.model)
    check_languages(settings.pipeline)
    settings.task.inputs.check_settings(settings.training)
    check_target(f"{settings.data.table}_predictions", make_prediction_schema(settings.task))
    check_target(f"{settings.data.table}_explanations", make_explanation_schema())
    check_data(settings.data, retrain=retrain)
