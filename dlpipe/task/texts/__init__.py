"""Texts as inputs: what every task over texts shares.

inputs         TextInputs, this half of a task
pairs          TextPairInputs, two texts a row
pair_features  plain features of two texts
requests       the texts in whatever a model is given
settings       TextTraining, the settings of a fine-tuning
model          TextModel, the trained network as files
backbones      where a backbone's files are, offline by default
lora           adapters beside frozen layers; the only file that names peft
bert           the encoder of a plain BERT in torch, which loads without transformers
network        the torch network: encoder, mean pooling, linear head
tokens         texts to token ids
encoding       token ids and embeddings of a table's texts, computed once
predictor      outputs for texts, as fast as the machine allows
words          the words of a text, which explanations give numbers to
word_tree      the tree over them: that of shap's masker
gradients      what each word adds to an output, by gradients
engines        torch and ONNX Runtime as ways to run a network, exported and measured at registration

``network`` imports torch, so it is imported inside the functions that need it.
"""

from dlpipe.task.texts.backbones import DEFAULT_BACKBONE, Backbone, find_backbone
from dlpipe.task.texts.inputs import TextInputs
from dlpipe.task.texts.model import TextModel
from dlpipe.task.texts.pairs import TextPairInputs
from dlpipe.task.texts.predictor import TextPredictor
from dlpipe.task.texts.settings import TextTraining

__all__ = [
    "DEFAULT_BACKBONE",
    "Backbone",
    "TextInputs",
    "TextModel",
    "TextPairInputs",
    "TextPredictor",
    "TextTraining",
    "find_backbone",
]
