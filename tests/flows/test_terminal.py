import io
import json
import logging
import subprocess
import sys

import pytest
from rich.console import Console

from flows import terminal
from flows.command import command
from flows.terminal import Screen, bar, open_screen


def test_records_of_our_packages_show_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with open_screen():
        logging.getLogger("featurize.some").info("made %d", 3)
        logging.getLogger("training.some").warning("slow")
        logging.getLogger("training.loop").info("a detail")
    logging.getLogger("featurize.some").info("after")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["made 3", "warning: slow"]


def test_markup_in_records_is_shown_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    with open_screen():
        logging.getLogger("flows.some").info("%s", "[bold]path[/bold] :smile:")
    assert capfd.readouterr().err == "[bold]path[/bold] :smile:\n"


def test_a_bar_moves_on_a_terminal() -> None:
    stream = io.StringIO()
    screen = Screen(Console(file=stream, force_terminal=True, width=120))
    with screen.bar("training v2") as shown:
        shown.update(0.5, "epoch 3/6")
        screen._progress.refresh()
        screen.console.print("a line above")
    assert "training v2" in stream.getvalue()
    assert "50%" in stream.getvalue()
    assert "a line above" in stream.getvalue()


def test_without_a_screen_a_bar_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with bar("x") as shown:
        shown.update(0.3, "y")
    assert capfd.readouterr() == ("", "")
    assert terminal._screen is None


def test_only_the_result_reaches_stdout() -> None:
    code = """if True:
        import os
        from flows.command import command
        with command(as_json=True) as running:
            print("Python talks")
            os.write(1, b"a library talks")
            running.finish({"value": 1.5}, "for people")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"value": 1.5}
    assert "Python talks" in done.stderr
    assert "a library talks" in done.stderr


def test_people_get_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with command(as_json=False) as running:
        running.finish({"value": 1.5}, "[for] people")
    assert capfd.readouterr().out == "[for] people\n"
