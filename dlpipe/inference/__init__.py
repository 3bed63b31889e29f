"""Load a model by its URI and score tables with it.

loading      the predictor of a registered model
pyfunc       the classifier as MLflow's Python function
scoring      a table version into a predictions table
"""

from dlpipe.inference.loading import load_predictor, model_folder
from dlpipe.inference.pyfunc import PyfuncModel, predictions, texts_of
from dlpipe.inference.scoring import Scored, score

__all__ = [
    "PyfuncModel",
    "Scored",
    "load_predictor",
    "model_folder",
    "predictions",
    "score",
    "texts_of",
]
