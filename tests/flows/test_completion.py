"""Completion of the command line, and the short form of help."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from flows.cli import app, run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = typer.main.get_command(app)


def completed(words):
    environment = os.environ | {
        "_SPIKELINE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    command = [sys.executable, "-m", "flows.cli"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("spikeline feat", {"featurize"}),
        ("spikeline corpus ", {"check", "split", "download", "synthesize"}),
        ("spikeline pipeline --rec", {"--recipe"}),
    ],
)
def test_commands_and_options_are_completed(words, expected):
    assert set(completed(words)) >= expected


@pytest.mark.parametrize("arguments", [["-h"], ["corpus", "-h"], ["corpus", "check", "-h"]])
def test_help_has_a_short_form(arguments, capfd):
    assert run(arguments) == 0
    assert "Usage: spikeline" in capfd.readouterr().out


def commands_on(page):
    """Every command line of ours in a page's blocks of code."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", page.read_text(), re.S)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [re.sub(r"^([A-Z_]+=\S+ )+", "", line).partition(" #")[0] for line in lines]
    return [line.partition(" > ")[0] for line in found if line.startswith("spikeline ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_is_one_that_there_is(page):
    """Its options exist and what they need is there; nothing is run."""
    lines = commands_on(page)
    assert lines or page.name in ("index.md", "python.md", "reference.md")
    for line in lines:
        command, words = COMMAND, shlex.split(line)[1:]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        command.make_context(line, words)
