"""Putting an ONNX graph together: nodes, weights, inputs and outputs of one row each."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.stage import PipelineError

OPSET = 18
IR_VERSION = 9


class OnnxGraph:
    """Collects a graph; names are given by the caller and are those of the model's tensors."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError:
            raise PipelineError(
                "ONNX needs the packages of the export extra: "
                "pip install -c constraints.txt -e '.[export]'"
            ) from None
        self._onnx: Any = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._shared: set[str] = set()

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A weight; returns its name."""
        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def shared(self, name: str, value: NDArray[Any]) -> str:
        """A constant that several parts of the graph use under one name."""
        if name not in self._shared:
            self._shared.add(self.constant(name, value))
        return name

    def double(self, source: str) -> str:
        """A tensor in float64."""
        return self._cast(source, "DOUBLE")

    def single(self, source: str) -> str:
        """A tensor in float32."""
        return self._cast(source, "FLOAT")

    def whole(self, source: str) -> str:
        """A tensor in int64."""
        return self._cast(source, "INT64")

    def _cast(self, source: str, to: str) -> str:
        name = f"{source}_as_{to.lower()}"
        if name not in self._shared:
            self._shared.add(self.add("Cast", [source], name, to=self._type(to)))
        return name

    def _type(self, name: str) -> int:
        number: int = self._onnx.TensorProto.DataType.Value(name)
        return number

    def running_sum(self, start: str, terms: str, output: str) -> str:
        """Add rows to a start one after the other, rounding to float32 after each.

        Args:
            start: (1, G) float32.
            terms: (n, G) float64.
            output: name of the result, (1, G) float32.
        """
        helper, double, single = self._onnx.helper, self._type("DOUBLE"), self._type("FLOAT")
        body = helper.make_graph(
            [
                helper.make_node("Cast", ["before"], ["exact"], to=double),
                helper.make_node("Add", ["exact", "term"], ["sum"]),
                helper.make_node("Cast", ["sum"], ["after"], to=single),
            ],
            f"{output}_step",
            [
                helper.make_tensor_value_info("before", single, None),
                helper.make_tensor_value_info("term", double, None),
            ],
            [helper.make_tensor_value_info("after", single, None)],
        )
        return self.add("Scan", [start, terms], output, body=body, num_scan_inputs=1)

    def add(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        """A node with one output; returns its name."""
        self.add_node(operator, inputs, [output], **attributes)
        return output

    def add_node(
        self, operator: str, inputs: list[str], outputs: list[str], **attributes: object
    ) -> None:
        """A node with any number of outputs."""
        node = self._onnx.helper.make_node(operator, inputs, outputs, **attributes)
        self._nodes.append(node)

    def split(self, source: str, outputs: list[str]) -> list[str]:
        """Columns in equal parts."""
        self.add_node("Split", [source], outputs, axis=1, num_outputs=len(outputs))
        return outputs

    def input(self, name: str, size: int) -> str:
        """An input of shape (1, size); returns its name."""
        self._inputs.append(self._row(name, size))
        return name

    def output(self, name: str, source: str, size: int) -> None:
        """An output of shape (1, size), under a name of its own."""
        self.add("Identity", [source], name)
        self._outputs.append(self._row(name, size))

    def _row(self, name: str, size: int) -> Any:
        return self._onnx.helper.make_tensor_value_info(
            name, self._onnx.TensorProto.FLOAT, [1, size]
        )

    def serialized(self, name: str, metadata: Mapping[str, str] | None = None) -> bytes:
        """The checked model.

        Args:
            name: of the graph.
            metadata: what the file says of itself beside the graph.
        """
        helper = self._onnx.helper
        model = helper.make_model(
            helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="spikeline",
        )
        helper.set_model_props(model, dict(metadata or {}))
        self._onnx.checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content
