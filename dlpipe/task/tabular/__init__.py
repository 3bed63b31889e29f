"""Columns of numbers and categories as inputs, and optionally a text beside them.

inputs       TabularInputs, this half of a task
settings     TabularTraining
scaling      how columns become arrays: learnt of the train split, kept with the model
encoded      EncodedColumns: the arrays of rows that the network reads
model        TabularModel: a trained model as files
network      embeddings of categories, scaled numbers and pooled texts under a few dense layers
predictor    TabularPredictor: a trained model as a network and what encodes its rows
features     plain features of columns

``network`` imports torch, so it is imported inside the functions that need it.
"""

from dlpipe.task.tabular.inputs import TabularInputs
from dlpipe.task.tabular.settings import TabularTraining

__all__ = ["TabularInputs", "TabularTraining"]
