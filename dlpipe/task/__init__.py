"""The seam between the life cycle and what is learnt: a ``Task``, found by its name.

protocol         what the author of a task writes: Inputs, Target, and what passes between them
entry_points     tasks by their names, from entry points of the group ``dlpipe.tasks``
settings         TrainingSettings, the settings of every training
model            a trained model as files
predictor        a trained model, loaded and ready
row_parts        the parts of a row that an explanation gives numbers to
torch_predictor  outputs of a torch network for rows
example          rows that a registered model is known by, and whether it still answers them alike
opening          models and their predictors, opened by the inputs of their task
requests         columns and values in whatever a model of MLflow, or a client, is given
columns          which columns of a file a task may mean, for `dlpipe init`
options          options of commands that name columns, and the tasks that they are for
distinct         rows that are the same, found column by column
batches          what a network reads, and length-bucketed batches of it
array_cache      arrays that can be made again, cached beside a table
evaluation       the scores of a model, and its mistakes
folds            folds of rows, for what a baseline says of rows that it was not fitted to
label_scores     precision, recall and F1 of each label with intervals, from counts
bootstrap        intervals of scores, by resampling the rows
gate             bounds that a model must reach
quality          how good predictions of new rows are beside those of the test split

Halves that tasks share: ``texts`` and ``tabular`` as inputs; ``classes``, ``labels`` and ``numbers`` as targets. A
folder a task: ``text_classification``, ``text_multilabel``, ``text_regression``, ``text_pair_classification``,
``tabular_classification``.
"""

import atexit
import gc
import os

from dlpipe.task.entry_points import DEFAULT_TASK, GROUP, find_distribution, find_task, list_own_tasks, list_tasks
from dlpipe.task.evaluation import Evaluation, Mistake, RowErrors, ScoreTable
from dlpipe.task.gate import Check, Thresholds
from dlpipe.task.model import ENGINE, ENGINES, EngineChoice, Model, read_engine_numbers
from dlpipe.task.opening import load_model, open_predictor
from dlpipe.task.predictor import Predictor, Row
from dlpipe.task.protocol import Baseline, Chance, Coding, DriftSeries, Inputs, Target, Task
from dlpipe.task.quality import Quality
from dlpipe.task.settings import TrainingSettings

__all__ = [
    "DEFAULT_TASK",
    "ENGINE",
    "ENGINES",
    "GROUP",
    "Baseline",
    "Chance",
    "Check",
    "Coding",
    "DriftSeries",
    "EngineChoice",
    "Evaluation",
    "Inputs",
    "Mistake",
    "Model",
    "Predictor",
    "Quality",
    "Row",
    "RowErrors",
    "ScoreTable",
    "Target",
    "Task",
    "Thresholds",
    "TrainingSettings",
    "find_distribution",
    "find_task",
    "list_own_tasks",
    "list_tasks",
    "load_model",
    "open_predictor",
    "read_engine_numbers",
]

# Read when torch is loaded. By default, OpenMP's threads spin while they wait for each other; where another
# process wants a core too, that made training two to five times slower. Waiting asleep costs next to nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Without this, Python looks through all objects of torch and transformers for cycles when the process ends: a
# second, six times a run.
atexit.register(gc.freeze)
