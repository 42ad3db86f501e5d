"""The notebook, executed from its first cell to its last, and what it uses."""

import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "from_speech_to_spikes.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook's cells of code after a run in a folder of its own, and that folder."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copy(NOTEBOOK, folder)
    notebook = nbformat.read(folder / NOTEBOOK.name, as_version=4)
    # The kernel is this Python, whatever kernels a person has; our modules are those tested.
    kernel = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    patience = {"timeout": None, "iopub_timeout": 600, "startup_timeout": 600}
    client = NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **patience)
    manager = client.create_kernel_manager()
    manager.kernel_spec.argv[:] = kernel["argv"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        client.execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"], folder


def printed(cell):
    return "".join(out.get("text", "") for out in cell.outputs if out.output_type == "stream")


def test_it_is_kept_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") for cell in cells)


def test_it_goes_from_speech_to_a_raster_and_to_counts(executed):
    cells, _ = executed
    said = "\n".join(map(printed, cells))
    assert "SNN v2" in said
    assert "million products a second" in said
    assert "recurrent_1" in said
    assert "heard:" in said
    pictures = [o for c in cells for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 1


def test_features_and_model_are_read_by_the_same_door(executed):
    import numpy as np

    import spikeline

    _, folder = executed
    runs = folder / "notebook-runs" / "runs"
    (features,) = (runs / "featurize").iterdir()
    data = spikeline.FeatureSet(features, "dev")
    assert len(data) == data.manifest.subsets["dev"].num_utterances
    assert {row.subset for row in data} == {"dev"}
    assert len({row.utterance_id for row in data}) == len(data)
    batch = data.collate([data[0], data[-1]])
    assert batch.lengths_B.tolist() == [len(data[0].features), len(data[-1].features)]
    with pytest.raises(spikeline.PipelineError, match="is not in this feature set"):
        spikeline.FeatureSet(features, "evening")
    run = next(iter((runs / "training").iterdir()))
    model = spikeline.load(run)
    with pytest.raises(spikeline.PipelineError, match="too few"):
        model.score(np.zeros(10, np.float32))
    noise = np.random.default_rng(0).normal(0, 0.1, 44_100).astype(np.float32)
    at_44 = model.score(noise, 44_100)
    assert abs(len(at_44.frames_TF) * at_44.frame_shift_s - 1.0) < 0.05
    assert np.allclose(np.exp(at_44.log_probs_TO).sum(1), 1, atol=1e-4)
