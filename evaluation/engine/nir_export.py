"""Export to NIR (Pedersen et al. 2024), for the one kind of recogniser that it can carry.

A conventional layer without quantisation is a leaky integrator: the encoder passes on its input,
or a projection of it (NIR's ``Affine``), and ``I_t = W X_t + b + tau I_{t-1}`` is NIR's ``LI`` in
steps of one frame::

    T dv/dt = -v + R i    =>    v_t = (1 - 1 / T) v_{t-1} + (R / T) i_t

with ``1 - 1 / T = tau`` and ``R = T``, and its integrator ``I`` where tau is 1. NIR has no node for
the rest: spikes of several bits or signs that take off their own size from the membrane, and
synaptic currents gated by a logistic function. An edge back would carry ``U Y_{t-1}``, but no node
multiplies two signals, so a gate cannot be put together from others either. Leaving any of it out
would be another network, so the export refuses.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.engine.engine_file import EngineData
from evaluation.engine.onnx_export import dense_bias, dense_matrix
from featurize.stage import PipelineError
from training.constants import UNQUANTIZED_BITS


def nir_file(data: EngineData) -> bytes:
    """A NIR file (HDF5) of a float32 engine."""
    description = data.description
    if description.model != "conventional":
        raise PipelineError(
            f"NIR cannot carry model={description.model}: it has no node for a gated synaptic "
            "current (I_t = F_t I_{t-1} + (1 - F_t) C_t with F_t = sigma(W X_t + U Y_{t-1})); "
            "export --format onnx or engine"
        )
    if description.num_bits != UNQUANTIZED_BITS:
        raise PipelineError(
            f"NIR cannot carry num_bits={description.num_bits}: it has no neuron with graded, "
            "signed spikes and a reset by the spike's own size (its neurons send 0 or 1); "
            "export --format onnx or engine"
        )
    nir = _import_nir()
    with tempfile.TemporaryDirectory(prefix="spikeline-export-") as folder:
        path = Path(folder) / "model.nir"
        nir.write(path, _graph(nir, data))
        return path.read_bytes()


def _import_nir() -> Any:
    try:
        import nir
    except ImportError:
        raise PipelineError(
            "NIR needs the packages of the export extra: "
            "pip install -c constraints.txt -e '.[export]'"
        ) from None
    return nir


def _graph(nir: Any, data: EngineData) -> Any:
    description, layout = data.description, data.layout
    nodes = {"input": nir.Input(input_type=np.array([description.num_features]))}
    order = ["input"]
    if description.projection_size is not None:
        weight_FP, bias_P = data.arrays["projection"], data.arrays["projection_bias"]
        nodes["projection"] = nir.Affine(weight=weight_FP.T.copy(), bias=bias_P)
        order.append("projection")
    for layer in range(1, description.num_layers + 1):
        matrix = layout.matrices[2 * layer - 2]
        start, size = int(layout.sites[layer, 1]), description.hidden_size
        nodes[f"drive_{layer}"] = nir.Affine(
            weight=dense_matrix(data, matrix).T.copy(), bias=dense_bias(data, matrix)
        )
        nodes[f"layer_{layer}"] = _integrator(nir, data.arrays["decays"][start : start + size])
        order += [f"drive_{layer}", f"layer_{layer}"]
    output = layout.matrices[-1]
    nodes["scores"] = nir.Affine(
        weight=dense_matrix(data, output).T.copy(), bias=dense_bias(data, output)
    )
    nodes["output"] = nir.Output(output_type=np.array([description.num_outputs]))
    order += ["scores", "output"]
    return nir.NIRGraph(nodes=nodes, edges=list(itertools.pairwise(order)))


def _integrator(nir: Any, decay: Any) -> Any:
    if (decay == 1.0).all():
        return nir.I(r=np.ones_like(decay))
    if (decay == 1.0).any():
        raise PipelineError(
            "NIR cannot carry this layer: some of its decays are exactly 1 and others not, and one "
            "node is either leaky (LI) or not (I); export --format onnx or engine"
        )
    time_constant = 1.0 / (1.0 - decay)
    return nir.LI(tau=time_constant, r=time_constant, v_leak=np.zeros_like(decay))
