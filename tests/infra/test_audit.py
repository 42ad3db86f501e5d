"""The audit reads pins strictly, and notices what is not one."""

from pathlib import Path

import pytest

from infra.audit import canonical, read_pins, unpinned

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("file", "some"),
    [
        ("constraints.txt", {"torch", "ray", "prefect", "pyarrow"}),
        ("infra/supply-chain.txt", {"cyclonedx-bom", "pip-audit"}),
    ],
)
def test_every_line_of_the_pins_is_an_exact_pin(file, some):
    assert some <= set(read_pins((REPOSITORY / file).read_text()))


@pytest.mark.parametrize("line", ["torch>=2", "torch", "a @ https://host/a.whl", "-e .", "--x y"])
def test_whatever_is_no_pin_is_refused(line):
    with pytest.raises(ValueError, match="line 2"):
        read_pins(f"numpy==2.0\n{line}\n")


def test_installed_packages_are_held_against_their_pins():
    problems = list(unpinned({"numpy": "0.0.1"}))
    assert any(
        problem.startswith("numpy ") and "0.0.1 is pinned" in problem for problem in problems
    )
    assert any("pytest" in problem and "not pinned" in problem for problem in problems)
    assert canonical("Ruamel.Yaml_x") == "ruamel-yaml-x"
