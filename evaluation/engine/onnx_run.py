"""The exported ONNX step in ONNX Runtime, frame after frame, beside the engine."""

import time
from typing import Any

import numpy as np
from pydantic import Field

from evaluation.engine.engine import Engine, Floats
from evaluation.engine.engine_file import EngineData
from evaluation.engine.onnx_export import initial_states, onnx_step_model
from featurize.stage import PipelineError, TypedConfig

LARGEST_DIFFERENCE = 1e-4


class OnnxComparison(TypedConfig):
    """How far the exported step and the engine agree on one stream of frames."""

    num_frames: int = Field(description="Frames run.")
    differing_frames: int = Field(
        description="Those with a score that differs by more than 1e-4, as after another spike."
    )
    largest_difference: float = Field(description="Of a score.")
    frame_us: float = Field(description="Mean time of a step in ONNX Runtime, one thread.")


class OnnxStream:
    """A step model with its state.

    Args:
        data: a float32 engine.

    Raises:
        PipelineError: without the packages of the ``export`` extra.
    """

    def __init__(self, data: EngineData) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise PipelineError(
                "ONNX Runtime is not installed: pip install -c constraints.txt -e '.[export]'"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            onnx_step_model(data), options, providers=["CPUExecutionProvider"]
        )
        self._states = initial_states(data)
        self._names = [output.name for output in self._session.get_outputs()]

    def advance(self, frame_1F: Floats) -> Floats:
        """Scores (1, O) of the next frame."""
        values = self._session.run(None, {"x": frame_1F} | self._states)
        outputs: dict[str, Floats] = dict(zip(self._names, values, strict=True))
        scores = outputs.pop("scores")
        self._states = {name.removesuffix("_out"): value for name, value in outputs.items()}
        return scores


def compare_onnx(data: EngineData, features_TF: Floats) -> OnnxComparison | None:
    """Run a stream through both; None without ONNX Runtime.

    Args:
        data: a float32 engine.
        features_TF: normalised frames, at least one.
    """
    engine = Engine(data)
    expected_TO = engine.advance(features_TF, engine.stream())
    try:
        stream = OnnxStream(data)
    except PipelineError:
        return None
    started = time.perf_counter()
    found = [stream.advance(features_TF[t : t + 1]) for t in range(len(features_TF))]
    elapsed = time.perf_counter() - started
    largest_T = np.abs(np.concatenate(found) - expected_TO).max(axis=1)
    return OnnxComparison(
        num_frames=len(features_TF),
        differing_frames=int((largest_T > LARGEST_DIFFERENCE).sum()),
        largest_difference=float(largest_T.max()),
        frame_us=1e6 * elapsed / len(features_TF),
    )
