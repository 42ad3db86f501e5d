"""The exported ONNX step in ONNX Runtime, frame after frame, beside the engine."""

from typing import NamedTuple

import numpy as np
import onnxruntime

from evaluation.engine.engine import Engine, Floats
from evaluation.engine.engine_file import EngineData
from evaluation.engine.onnx_export import initial_states, onnx_step_model

LARGEST_DIFFERENCE = 1e-4


class OnnxComparison(NamedTuple):
    """How far the exported step and the engine agree on one stream of frames.

    Attributes:
        differing_frames: frames with a score that is further off than ``LARGEST_DIFFERENCE``, as
            after another spike.
        largest_difference: of a score.
    """

    differing_frames: int
    largest_difference: float


def run_onnx(data: EngineData, features_TF: Floats) -> Floats:
    """Scores of every frame, (T, O), of the exported step of a float32 engine."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_step_model(data), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    states, scores = initial_states(data), []
    for frame_1F in np.split(features_TF, len(features_TF)):
        outputs = dict(zip(names, session.run(None, {"x": frame_1F} | states), strict=True))
        scores.append(outputs.pop("scores"))
        states = {name.removesuffix("_out"): value for name, value in outputs.items()}
    return np.concatenate(scores)


def compare_onnx(data: EngineData, features_TF: Floats) -> OnnxComparison:
    """Run a stream of normalised frames through both."""
    engine = Engine(data)
    expected_TO = engine.advance(features_TF, engine.stream())
    largest_T = np.abs(run_onnx(data, features_TF) - expected_TO).max(axis=1)
    return OnnxComparison(int((largest_T > LARGEST_DIFFERENCE).sum()), float(largest_T.max()))
