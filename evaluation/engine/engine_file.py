"""One self-contained file that an engine runs from: safetensors, with a description as JSON.

The weights are read once, straight to their aligned place, and nothing of the file stays in
memory beside them. Sizes, checksums and values are checked before anything runs.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_safetensors

from evaluation.engine.description import EngineDescription, SearchDescription
from evaluation.engine.layout import Layout, lay_out
from evaluation.graph.search import GraphSearch
from evaluation.graph.search_graph import SearchGraph, from_arrays
from evaluation.graph.search_graph import expected_arrays as expected_graph_arrays
from featurize.stage import PipelineError

_DESCRIPTION, _CHECKSUMS = "spikeline_engine", "sha256"
_ALIGNMENT = 64

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class EngineData:
    """An engine's description and numbers."""

    description: EngineDescription
    # ``weights``, ``biases``, ``quantizers`` and, where they apply, ``scales``, ``decays``,
    # ``projection`` and ``projection_bias``; of v3 ``thresholds`` (in levels, per site) and
    # ``leaks``; and the search graphs' arrays, their names behind ``symbols_`` and ``words_``
    arrays: Arrays

    @property
    def layout(self) -> Layout:
        """Where the numbers lie."""
        return lay_out(self.description)

    def search(self, kind: Literal["symbols", "words"]) -> GraphSearch | None:
        """The search for symbols or words; None where the engine has none."""
        description = searches_of(self.description).get(kind)
        if description is None:
            return None
        names = expected_graph_arrays(description.size)
        arrays = {name: self.arrays[f"{kind}_{name}"] for name in names}
        graph = from_arrays(description.size, arrays, "engine")
        if kind == "symbols" and len(graph.words) > len(self.description.labels.symbols):
            raise PipelineError(
                "engine: its search finds more symbols than it has; export it again"
            )
        return GraphSearch(graph, description.weights)

    @property
    def weight_bytes(self) -> int:
        """Size of the weights, padding included."""
        return int(self.arrays["weights"].nbytes)


def searches_of(description: EngineDescription) -> dict[str, SearchDescription]:
    """The searches that an engine carries, by the prefix of their arrays."""
    named = {"symbols": description.symbol_search, "words": description.word_search}
    return {prefix: search for prefix, search in named.items() if search is not None}


def search_arrays(prefix: str, graph: SearchGraph) -> dict[str, NDArray[Any]]:
    """A search graph's arrays as they stand in an engine."""
    return {f"{prefix}_{name}": array for name, array in graph.arrays().items()}


def expected_arrays(description: EngineDescription) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every array that a description calls for."""
    layout = lay_out(description)
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "weights": (description.precision, (layout.num_weights,)),
        "biases": ("float32", (layout.num_biases,)),
        "quantizers": ("float32", (description.num_layers + 1, 4)),
    }
    if description.precision == "int8":
        expected["scales"] = ("float32", (layout.num_biases,))
    if description.model == "conventional":
        expected["decays"] = ("float32", (layout.state_size,))
    if description.v3 is not None:
        expected["thresholds"] = ("float32", (description.num_layers + 1,))
        if description.v3.has_leak:
            expected["leaks"] = ("float32", (layout.state_size,))
    if description.projection_size is not None:
        encoded = description.projection_size
        expected["projection"] = ("float32", (description.num_features, encoded))
        expected["projection_bias"] = ("float32", (encoded,))
    for prefix, search in searches_of(description).items():
        of_graph = expected_graph_arrays(search.size)
        expected |= {f"{prefix}_{name}": kind for name, kind in of_graph.items()}
    return expected


def check(data: EngineData, source: str) -> None:
    """Make sure that nothing is missing, misshapen or not a number."""
    expected = expected_arrays(data.description)
    if set(data.arrays) != set(expected):
        raise PipelineError(f"{source}: holds {sorted(data.arrays)}, not {sorted(expected)}")
    for name, (dtype, shape) in expected.items():
        array = data.arrays[name]
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise PipelineError(
                f"{source}: {name} is {array.dtype} {array.shape}, not {dtype} {shape}"
            )
        if array.dtype == np.float32 and not bool(np.isfinite(array).all()):
            raise PipelineError(
                f"{source}: {name} is not finite; the model's training diverged, train it again "
                "with a lower learning rate"
            )
    if not bool((data.arrays["quantizers"][:, :2] > 0).all()):
        raise PipelineError(f"{source}: a quantiser's range is not positive")


def write_engine(data: EngineData) -> bytes:
    """The file's content."""
    check(data, "engine")
    arrays = {name: np.ascontiguousarray(array) for name, array in data.arrays.items()}
    checksums = {name: hashlib.sha256(array.data).hexdigest() for name, array in arrays.items()}
    # Of an option that a model does not have its file says nothing.
    optional = data.description.model_dump(include={"v3", "projection_size", "trained_on"})
    left_out = {name for name, value in optional.items() if not value}
    description = data.description.model_dump_json(exclude=left_out)
    metadata = {_DESCRIPTION: description, _CHECKSUMS: json.dumps(checksums)}
    return _in_order(save_safetensors(arrays, metadata=metadata))


def _in_order(content: bytes) -> bytes:
    """The same file with its metadata sorted: safetensors writes them in any order.

    A header is its length in eight bytes, and JSON that ends with spaces on a multiple of eight.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def read_engine(path: str | Path) -> EngineData:
    """Load an engine file.

    Raises:
        PipelineError: when it is missing, damaged, or of another version.
    """
    source = str(path)
    try:
        with safe_open(source, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            names = set(opened.keys())
    except FileNotFoundError:
        raise PipelineError(f"{source}: no such engine file") from None
    except (SafetensorError, OSError) as error:
        raise PipelineError(f"{source} is no engine file: {error}") from None
    if _DESCRIPTION not in metadata:
        raise PipelineError(f"{source} is no engine file; make one with spikeline export")
    try:
        description = EngineDescription.model_validate_json(metadata[_DESCRIPTION])
        checksums = dict(json.loads(metadata.get(_CHECKSUMS, "{}")))
    except (ValidationError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise PipelineError(
            f"{source}: its description cannot be read ({reason}); export it again"
        ) from None
    expected = expected_arrays(description)
    if names != set(expected):
        raise PipelineError(f"{source}: holds {sorted(names)}, not {sorted(expected)}")
    data = EngineData(description, _read_arrays(source, expected, checksums))
    check(data, source)
    return data


def _read_arrays(
    source: str, expected: Mapping[str, tuple[str, tuple[int, ...]]], checksums: dict[str, str]
) -> dict[str, NDArray[Any]]:
    """Read every array to a place of its own, aligned to a cache line.

    ``safe_open`` has checked the header against the file; its own reader would keep the file's
    pages in memory beside the copy.
    """
    arrays = {}
    with open(source, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        for name, (dtype, shape) in expected.items():
            start, end = header[name]["data_offsets"]
            num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            if end - start != num_bytes:
                raise PipelineError(f"{source}: {name} has {end - start} bytes, not {num_bytes}")
            array = _aligned(np.dtype(dtype), shape)
            stream.seek(8 + size + start)
            stream.readinto(array.reshape(-1).view(np.uint8).data)
            if checksums.get(name) != hashlib.sha256(array.data).hexdigest():
                raise PipelineError(
                    f"{source}: {name} is damaged (checksum differs); export it again"
                )
            arrays[name] = array
    return arrays


def _aligned(dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.empty(size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)
