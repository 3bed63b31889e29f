"""Load a model by its URI and score tables with it.

loading      the predictor of a registered model
pyfunc       a model as MLflow's Python function
evaluator    classifiers in ``mlflow.models.evaluate``
scoring      a table version into a predictions table
new_rows     the rows of a table that are new since the last time, each once
latest       the latest answer for each row
pipeline     clean-up, language, cache and classifier as one model
packing      a pipeline made of a registered classifier, registered

``cleaning``, ``languages`` and ``answers`` are what a pipeline consists of, ``pipeline_scoring`` scores a table
with it.
"""

from dlpipe.inference.latest import latest_answers
from dlpipe.inference.loading import is_pipeline, load_predictor, model_folder, read_card
from dlpipe.inference.new_rows import ScoredUntil, score_new, score_whole, scored_until, scorer_of
from dlpipe.inference.packing import check_languages, register_pipeline
from dlpipe.inference.pipeline import Pipeline, PipelineSettings, load_pipeline
from dlpipe.inference.pipeline_scoring import answer_schema, score_with_pipeline
from dlpipe.inference.pyfunc import PyfuncModel, predictions
from dlpipe.inference.scoring import prediction_schema, score
from dlpipe.parts import Scored

__all__ = [
    "Pipeline",
    "PipelineSettings",
    "PyfuncModel",
    "Scored",
    "ScoredUntil",
    "answer_schema",
    "check_languages",
    "is_pipeline",
    "latest_answers",
    "load_pipeline",
    "load_predictor",
    "model_folder",
    "prediction_schema",
    "predictions",
    "read_card",
    "register_pipeline",
    "score",
    "score_new",
    "score_whole",
    "score_with_pipeline",
    "scored_until",
    "scorer_of",
]
