"""The explainer for a registered model: the one that was registered with it, or one made here."""

from __future__ import annotations

from dlpipe.errors import ExplanationError
from dlpipe.explain.explanations import ExplainSettings
from dlpipe.explain.pyfunc import LOADER, PyfuncExplainer, open_explainer
from dlpipe.inference import is_pipeline, load_predictor
from dlpipe.inference.loading import download_model
from dlpipe.registry import KIND, MADE_FROM, ModelVersion, read_details, resolve
from dlpipe.scratch import open_scratch
from dlpipe.task import find_task
from dlpipe.tracking import open_store


def load_explainer(uri: str) -> PyfuncExplainer:
    """Return the explainer of the registered model that ``uri`` names.

    Of a classifier that is the one that was registered with it. Where there is none, its rows are explained with
    the usual settings.

    Parameters
    ----------
    uri : str
        Of a classifier or an explainer, such as ``models:/reviews@champion``.

    Raises
    ------
    ModelNotFound
        When there is no such model, version or alias.
    ExplanationError
        When rows of its task are not explained, or it is a pipeline.
    """
    version = resolve(uri)
    if reason := find_task(version.task).inputs.not_explained:
        raise ExplanationError(f"{version.uri}: {reason}")
    if is_pipeline(version):
        made_from = version.tags[MADE_FROM].removeprefix("models:/")
        raise ExplanationError(f"{version.uri} is a pipeline. Explain its classifier: --model {made_from}.")
    explainer = version if version.tags.get(KIND) == "explainer" else find_explainer(version)
    if explainer is None:
        return PyfuncExplainer(load_predictor(version.uri, engine="exact"), ExplainSettings())
    # it has read its files when it is returned: what was downloaded goes at the end of the block
    with open_scratch() as scratch:
        return open_explainer(download_model(open_store(), explainer, scratch=scratch, loader=LOADER))


def find_explainer(classifier: ModelVersion) -> ModelVersion | None:
    """Return the explainer that was made from a version, the champion or the newest of several."""
    companions = read_details(classifier.uri).companions
    return next((made for made in companions if made.tags.get(KIND) == "explainer"), None)
