"""The ONNX graph with eight-bit products.

Every product of states with fixed weights is computed in integers, with three cares that ONNX Runtime's own
dynamic quantisation does not take. It gives a whole batch one scale: a single state of 28 among states of 2, as
the first token of a text has it, costs all tokens their precision, and what a text gets depends on the others.

1. Weights have a scale for each output.
2. States have a scale for each token, found while running.
3. The few channels whose states peak highest on sample texts stay in 32 bits, and no scale is wider than the other
   channels of the samples need.

Integer products are so fast that what stands around them decides: each pass over the states costs as much as a
product. So a bias is one more row of the 32-bit product, and the channels that peak are quantised like the others
(they saturate) under weights of zero, instead of being taken out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MIDDLE, LARGEST = 128, 127  # unsigned states around 128 times signed weights: the pair that VNNI multiplies
SMALLEST_SIDE = 32  # of the weights; a head of two classes stays in 32 bits
PEAKS = 8
"""Channels in 32 bits; 8 halved the differences to torch, 16 and 32 changed nothing more."""
DOMAIN = "com.microsoft"  # ONNX Runtime's own operators


def quantize_graph(graph: bytes, samples: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """Return ``graph`` with integer products wherever states meet fixed weights.

    Parameters
    ----------
    samples : iterable of batches
        Real texts as the graph's inputs; a few dozen texts show which channels peak.

    Raises
    ------
    ValueError
        When there is no such product.
    """
    import onnx

    model = onnx.load_from_string(graph)
    GraphRewriter(model.graph, find_state_peaks(graph, samples)).rewrite()
    if all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    content: bytes = model.SerializeToString()
    return content


def find_state_peaks(graph: bytes, samples: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the largest absolute value of each channel of all states that meet fixed weights."""
    import onnx

    from dlpipe.task.texts.engines.networks import open_onnx_session

    model = onnx.load_from_string(graph)
    names = sorted(
        {node.input[0] for node in model.graph.node if find_product_weights(model.graph, node) is not None}
    )
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = open_onnx_session(model.SerializeToString())
    peaks: dict[str, np.ndarray] = {}
    for batch in samples:
        for name, states in zip(names, session.run(names, dict(batch)), strict=True):
            seen = np.abs(states).reshape(-1, states.shape[-1]).max(axis=0)
            peaks[name] = np.maximum(peaks.get(name, 0), seen)
    return peaks


def find_product_weights(graph: Any, node: Any) -> Any:
    """Return the fixed weights that ``node`` multiplies states with; ``None`` if it does nothing of the kind."""
    if node.op_type != "MatMul":
        return None
    found = next((tensor for tensor in graph.initializer if tensor.name == node.input[1]), None)
    return found if found is not None and len(found.dims) == 2 and min(found.dims) >= SMALLEST_SIDE else None


def quantize_weights(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``weights`` of shape (inputs, outputs) as int8, and the scale of each output.

    Examples
    --------
    >>> numbers, scales = quantize_weights(np.array([[1.27, -2.54], [0.01, 0.0]], np.float32))
    >>> numbers.tolist(), [round(float(scale), 4) for scale in scales]
    ([[127, -127], [1, 0]], [0.01, 0.02])
    """
    scales = np.maximum(np.abs(weights).max(axis=0), 1e-8).astype(np.float32) / LARGEST
    return np.round(weights / scales).astype(np.int8), scales


@dataclass(frozen=True)
class States:
    """States on their way into products, as names in the graph.

    Attributes
    ----------
    integers : uint8 of shape (tokens, width), of any value in the channels that peak
    scales : float32 of shape (tokens, 1)
    peaking : float32 of shape (tokens, len(channels) + 1), the last column being 1: what a bias is multiplied with
    leading : the sizes of all dimensions but the last
    channels : the numbers of the channels that peak
    """

    integers: str
    scales: str
    peaking: str
    leading: str
    channels: np.ndarray


class GraphRewriter:
    """Rewrites the products of one graph in place."""

    def __init__(self, graph: Any, peaks: Mapping[str, np.ndarray]) -> None:
        self._graph, self._peaks = graph, peaks
        self._nodes: list[Any] = []
        self._states: dict[str, States] = {}
        self._constants: set[str] = set()

    def rewrite(self) -> None:
        """Rewrite every product with fixed weights."""
        replaced, biases = set(), set()
        for node in self._graph.node:
            weights = find_product_weights(self._graph, node)
            if weights is not None:
                replaced.add(weights.name)
                biases.add(self._rewrite_product(node, weights))
            elif node.output[0] not in biases:
                self._nodes.append(node)
        if not replaced:
            raise ValueError("no product of states with fixed weights was found")
        used = {name for node in self._nodes for name in node.input}
        # what only replaced products read: four bytes a weight beside the one of int8
        for tensor in [tensor for tensor in self._graph.initializer if tensor.name in replaced - used]:
            self._graph.initializer.remove(tensor)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _rewrite_product(self, node: Any, initializer: Any) -> str:
        """Add ``node`` and the bias after it, and return the name of what comes out."""
        from onnx import numpy_helper

        states, output = self._get_quantized_states(node.input[0]), f"{node.output[0]}/int8"
        weights = numpy_helper.to_array(initializer)
        made, bias = self._find_bias(node.output[0], width=weights.shape[1])
        rest = weights.copy()
        rest[states.channels] = 0
        self._add_integer_product(states, rest, name=initializer.name, output=output)
        exact = self._add_constant(f"{initializer.name}/exact", np.vstack([weights[states.channels], bias]))
        self._add_node("Gemm", [states.peaking, exact, output], f"{output}/sum")
        width = self._add_constant(f"int8/width{weights.shape[1]}", np.array([weights.shape[1]]))
        self._add_node("Concat", [states.leading, width], f"{output}/shape", axis=0)
        self._add_node("Reshape", [f"{output}/sum", f"{output}/shape"], made)
        return made

    def _find_bias(self, product: str, *, width: int) -> tuple[str, np.ndarray]:
        """Return what comes out of adding a bias to ``product``, and the bias: zeros where there is none."""
        from onnx import numpy_helper

        readers = [node for node in self._graph.node if product in node.input]
        if len(readers) == 1 and readers[0].op_type == "Add":
            for tensor in self._graph.initializer:
                if tensor.name in readers[0].input and list(tensor.dims) == [width]:
                    return str(readers[0].output[0]), numpy_helper.to_array(tensor)
        return product, np.zeros(width, np.float32)

    def _add_integer_product(self, states: States, weights: np.ndarray, *, name: str, output: str) -> None:
        numbers, scales = quantize_weights(weights)
        inputs = [
            states.integers,
            self._add_constant(f"{name}/int8", numbers),
            self._add_constant("int8/one", np.float32(1)),
            self._add_constant(f"{name}/scales", scales),
            self._add_constant("int8/middle", np.uint8(MIDDLE)),
        ]
        self._add_node("MatMulIntegerToFloat", inputs, f"{output}/unscaled", domain=DOMAIN)
        self._add_node("Mul", [f"{output}/unscaled", states.scales], output)

    def _get_quantized_states(self, states: str) -> States:
        """Return ``states`` as integers, made once for all products that read them."""
        if states not in self._states:
            self._states[states] = self._quantize_states(states, f"{states}/int8")
        return self._states[states]

    def _quantize_states(self, states: str, made: str) -> States:
        peaks = self._peaks[states]
        channels = np.sort(np.argsort(-peaks)[: min(PEAKS, len(peaks) // 16)])
        self._add_node("Shape", [states], f"{made}/leading", start=0, end=-1)
        self._add_node(
            "Reshape", [states, self._add_constant(f"int8/flat{len(peaks)}", np.array([-1, len(peaks)]))], made
        )
        self._add_node("Gather", [made, self._add_constant(f"{made}/channels", channels)], f"{made}/peaks", axis=1)
        one_more = self._add_constant("int8/one-more", np.array([0, 0, 0, 1]))
        unit = self._add_constant("int8/one", np.float32(1))
        self._add_node("Pad", [f"{made}/peaks", one_more, unit], f"{made}/peaking")
        self._add_scales(made, widest=float(np.delete(peaks, channels).max()))
        middles = self._add_zero_points(f"{made}/list")
        self._add_node("QuantizeLinear", [made, f"{made}/list", middles], f"{made}/integers", axis=0)
        return States(f"{made}/integers", f"{made}/scales", f"{made}/peaking", f"{made}/leading", channels)

    def _add_scales(self, states: str, *, widest: float) -> None:
        """Add what gives each token's scale, as a column (``scales``) and as a list."""
        self._add_node("ReduceMax", [states], f"{states}/high", axes=[1])
        self._add_node("ReduceMin", [states], f"{states}/low", axes=[1])
        self._add_node("Neg", [f"{states}/low"], f"{states}/-low")
        smallest = self._add_constant("int8/smallest", np.float32(1e-6))
        self._add_node("Max", [f"{states}/high", f"{states}/-low", smallest], f"{states}/larger")
        limit = self._add_constant(f"{states}/widest", np.float32(widest))
        self._add_node("Min", [f"{states}/larger", limit], f"{states}/top")
        step = self._add_constant("int8/step", np.float32(1 / LARGEST))
        self._add_node("Mul", [f"{states}/top", step], f"{states}/scales")
        self._add_node(
            "Reshape", [f"{states}/scales", self._add_constant("int8/rest", np.array([-1]))], f"{states}/list"
        )

    def _add_zero_points(self, scales: str) -> str:
        """Return the zero points that belong to ``scales``: QuantizeLinear wants one for each."""
        from onnx import TensorProto, helper

        self._add_node("Shape", [scales], f"{scales}/length")
        middle = helper.make_tensor("value", TensorProto.UINT8, [1], [MIDDLE])
        self._add_node("ConstantOfShape", [f"{scales}/length"], f"{scales}/middles", value=middle)
        return f"{scales}/middles"

    def _add_node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))

    def _add_constant(self, name: str, value: np.ndarray | np.generic) -> str:
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants.add(name)
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name
