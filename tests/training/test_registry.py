import subprocess
import sys

import pytest
from pydantic import ValidationError

from featurize.stage import PipelineError
from training.models import registry
from training.models.model_config import ModelConfig
from training.models.registry import BUILT_IN, known_models, model_named
from training.train_config import DensityConfig, TrainConfig

OWN_MODEL = """
from pydantic import Field

from training.models.counting import NetworkCost, SiteCost
from training.models.model_config import ModelConfig
from training.models.registry import ModelSpec


class OwnConfig(ModelConfig):
    gain: float = Field(1.5, gt=0, description="Factor of the input.")


MODEL = ModelSpec(
    "own",
    "a neuron of my own",
    "nowhere:Network",
    lambda config: NetworkCost(1, 0, SiteCost(1, 1)),
    config=OwnConfig,
    version=VERSION,
)
NOT_A_MODEL = 3
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module with a model, importable while the test runs."""

    def write(name, version=0):
        text = OWN_MODEL.replace("VERSION", str(version))
        (tmp_path / f"{name}.py").write_text(text)
        return f"{name}:MODEL"

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    registry.MODELS._found.clear()


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_models_are_what_their_entry_says(name):
    spec = model_named(name)
    assert spec.name == name
    assert ModelConfig(model=name).spec is spec


def test_a_model_is_found_by_module_and_attribute(own_module):
    address = own_module("by_address")
    config = TrainConfig.model_validate({"model": {"model": address, "gain": 2.0}})
    assert type(config.model).__name__ == "OwnConfig"
    assert config.model.gain == 2.0
    assert config.model.spec.title == "a neuron of my own"
    again = TrainConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert config.determining()["model"]["gain"] == 2.0


def test_a_model_is_found_through_an_entry_point(own_module, tmp_path):
    address = own_module("by_entry_point")
    info = tmp_path / "their_neurons-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-neurons\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[spikeline.models]\nown = {address}\n")
    vars(registry.MODELS).pop("installed", None)
    try:
        assert known_models() == (*BUILT_IN, "own")
        assert ModelConfig(model="own").spec.name == "own"
        schema = ModelConfig.model_json_schema()["properties"]["model"]
        assert schema["enum"] == [*BUILT_IN, "own"]
    finally:
        vars(registry.MODELS).pop("installed", None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("v7", "no model 'v7'; models: conventional, v1, v2"),
        ("not_there:MODEL", "cannot import not_there"),
        ("os:system", "of Python itself"),
        ("os.path:join", "of Python itself"),
        ("refused:MISSING", "has no MISSING"),
        ("refused:NOT_A_MODEL", "is a int, not a ModelSpec"),
    ],
)
def test_what_is_no_model_is_refused_with_a_reason(own_module, name, reason):
    own_module("refused")
    with pytest.raises(ValidationError, match=reason):
        ModelConfig(model=name)
    with pytest.raises(PipelineError, match=reason):
        model_named(name)


def test_a_name_of_python_itself_is_not_imported():
    script = (
        "import sys\n"
        "from training.models.registry import model_named\n"
        "try:\n    model_named('antigravity:x')\n"
        "except ValueError:\n    print('antigravity' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_configurations_become_the_class_of_their_model(own_module):
    address = own_module("own_class")
    plain = ModelConfig(model=address, hidden_size=7)
    assert TrainConfig(model=plain).model.gain == 1.5
    other = plain.for_model("gru")
    assert (type(other), other.model, other.hidden_size) == (ModelConfig, "gru", 7)
    projected = ModelConfig(model="v3", projection_size=5)
    assert projected.for_model("ligru").projection_size == 5
    assert projected.for_model("gru").projection_size is None
    with pytest.raises(ValidationError, match="gain"):
        TrainConfig.model_validate({"model": {"model": "gru", "gain": 1.0}})
    with pytest.raises(ValidationError, match="greater than 0"):
        TrainConfig.model_validate({"model": {"model": address, "gain": -1.0}})


def test_a_version_renames_the_results_of_one_model_alone(own_module):
    first = TrainConfig(model=ModelConfig(model=own_module("version_0"))).determining()
    second = TrainConfig(model=ModelConfig(model=own_module("version_1", 1))).determining()
    assert "version" not in first["model"]
    assert second["model"]["version"] == 1


def test_settings_that_a_model_lacks_do_not_name_its_results():
    penalty = DensityConfig(weight=1.0)
    spiking = TrainConfig(model=ModelConfig(model="v2"), density=penalty).determining()
    dense = TrainConfig(model=ModelConfig(model="gru"), density=penalty).determining()
    assert spiking["density"]["weight"] == 1.0
    assert spiking["model"]["num_bits"] == 6
    assert "density" not in dense
    assert "num_bits" not in dense["model"]


def test_reading_models_needs_no_torch():
    script = (
        "import sys\n"
        "from training.models.registry import BUILT_IN, model_named\n"
        "from training.models.counting import NetworkShape\n"
        "from training.models.model_config import ModelConfig\n"
        "for name in BUILT_IN:\n"
        "    NetworkShape(ModelConfig(model=name), 40, 10).cost\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_mistake_in_a_module_of_ones_own_is_said(tmp_path, monkeypatch):
    (tmp_path / "my_own_mistake.py").write_text("MODEL = (\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PipelineError, match="importing my_own_mistake fails: SyntaxError"):
        model_named("my_own_mistake:MODEL")
