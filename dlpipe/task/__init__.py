"""The learning task: text classification with any number of classes.

model        TextModel, the trained classifier as files
backbones    where a backbone's files are, offline by default
later        modules that are imported when somebody asks for them
lora         adapters beside frozen layers; the only file that names peft
optimizer    AdamW with clipping that updates the rows of an embedding that a batch has
bert         the encoder of a plain BERT in torch, which loads without transformers
network      the torch network: encoder, mean pooling, linear head
batches      texts to token ids, and length-bucketed batches of them
features     token ids and embeddings of a table's texts, computed once
kept         arrays kept beside a table, whole or not there
predictor    probabilities for texts, as fast as the machine allows
engines      torch and ONNX Runtime as ways to run a network, exported and measured at registration
classifier   the Flash task and trainer around the network; the only file that names lightning-flash

``network`` and ``classifier`` import torch and Flash, so they are imported inside the functions that need them.
"""

import atexit
import gc
import os

from dlpipe.task.backbones import DEFAULT_BACKBONE, Backbone, find_backbone
from dlpipe.task.model import TextModel
from dlpipe.task.predictor import Predictor, open_predictor

__all__ = ["DEFAULT_BACKBONE", "Backbone", "Predictor", "TextModel", "find_backbone", "open_predictor"]

# Read when torch is loaded. By default, OpenMP's threads spin while they wait for each other; where another
# process wants a core too, that made training two to five times slower. Waiting asleep costs next to nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Without this, Python looks through all objects of torch and transformers for cycles when the process ends: a
# second, six times a run.
atexit.register(gc.freeze)
