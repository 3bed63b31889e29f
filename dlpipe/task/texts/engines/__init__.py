"""Engines: ways to run a trained network, exported and measured when a model is registered.

kinds      the names of the engines, and what each asks of the machine
networks   a network that is loaded and ready, one class an engine
graphs     the torch network as an ONNX graph
int8       the ONNX graph with eight-bit products
candidates the engines that can be made for a model on this machine
comparison every engine beside torch on labelled texts, and the choice
stored     the engines of a registered model as files
opening    the network of a model on the engine that was asked for, or on the best that works here

``graphs`` and ``networks.TorchNetwork`` need torch; an ONNX engine runs without it.
"""

from dlpipe.task.texts.engines.comparison import CheckSettings, export_engines
from dlpipe.task.texts.engines.kinds import BF16, ENGINES, INT8, ONNX, TORCH
from dlpipe.task.texts.engines.stored import EngineCheck, Engines, ServedModel

__all__ = [
    "BF16",
    "ENGINES",
    "INT8",
    "ONNX",
    "TORCH",
    "CheckSettings",
    "EngineCheck",
    "Engines",
    "ServedModel",
    "export_engines",
]
