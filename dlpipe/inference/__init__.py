"""Load a registered model by its URI and score tables with it; the pipeline around a classifier.

loading      the predictor of a registered model
pyfunc       a model as MLflow's Python function
evaluator    classifiers in ``mlflow.models.evaluate``
scoring      a table version into a predictions table
file_scoring the rows of a file, with their predictions, into another file
new_rows     the rows of a table that are new since the last time, each once
latest       the latest answer for each row
pipeline     clean-up, language, cache and classifier as one model
packing      a pipeline made of a registered classifier, registered

``cleaning``, ``languages`` and ``answers`` are what a pipeline consists of, ``pipeline_scoring`` scores a table
with it.
"""

from dlpipe.inference.file_scoring import FileScores, score_file
from dlpipe.inference.latest import read_latest_answers
from dlpipe.inference.loading import download_model, is_pipeline, load_predictor, read_card
from dlpipe.inference.new_rows import ScoredVersion, find_scored_version, load_scorer, score_new, score_whole
from dlpipe.inference.packing import check_languages, register_pipeline
from dlpipe.inference.pipeline import Pipeline, PipelineSettings, load_pipeline
from dlpipe.inference.pipeline_scoring import make_answer_schema, score_with_pipeline
from dlpipe.inference.pyfunc import PyfuncModel, predict_frame
from dlpipe.inference.scoring import make_prediction_schema, score
from dlpipe.parts import ScoringResult

__all__ = [
    "FileScores",
    "Pipeline",
    "PipelineSettings",
    "PyfuncModel",
    "ScoredVersion",
    "ScoringResult",
    "check_languages",
    "download_model",
    "find_scored_version",
    "is_pipeline",
    "load_pipeline",
    "load_predictor",
    "load_scorer",
    "make_answer_schema",
    "make_prediction_schema",
    "predict_frame",
    "read_card",
    "read_latest_answers",
    "register_pipeline",
    "score",
    "score_file",
    "score_new",
    "score_whole",
    "score_with_pipeline",
]
