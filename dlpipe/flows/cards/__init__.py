"""What the steps show on their Metaflow cards, the most important thing first.

parts         what cards are made of: boxes, tables, pictures; a part that cannot be made never fails a run
data          what was ingested
training      the search, and the training while it runs
evaluation    how good a model is, compared with what, and whether that is enough; the gate's verdict
explanations  which parts of rows decide
predictions   how many rows were scored, how surely, and whether predictions are as before
drift         whether new rows differ from those of the training, and what follows

Each ``show_...`` fills the card of the step that calls it; each ``make_..._parts`` yields what it shows.
"""

from dlpipe.flows.cards.data import show_data
from dlpipe.flows.cards.drift import describe_quality, show_drift
from dlpipe.flows.cards.evaluation import show_evaluation, show_verdict
from dlpipe.flows.cards.explanations import show_explanations, show_nothing
from dlpipe.flows.cards.predictions import show_predictions
from dlpipe.flows.cards.training import LearningCurves, show_trials

__all__ = [
    "LearningCurves",
    "describe_quality",
    "show_data",
    "show_drift",
    "show_evaluation",
    "show_explanations",
    "show_nothing",
    "show_predictions",
    "show_trials",
    "show_verdict",
]
