import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from flows import terminal
from flows.command import command
from flows.terminal import LineBar, LiveLine, Screen, bar, open_screen, print_line, shortened


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


def test_paths_are_shown_as_they_are_typed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home" / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home" / "work")
    with command(as_json=False) as running:
        logging.getLogger("flows.some").info("made: %s/runs/x", Path.cwd())
        running.finish({"at": f"{Path.cwd()}/runs"}, f"at {Path.home()}/other/y and /data/z")
    shown = capfd.readouterr()
    assert shown.err == "made: runs/x\n"
    assert shown.out == "at ~/other/y and /data/z\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_growing_text_stays_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    live = LiveLine(stream)
    for text in ("s", "s ih", "s ih", "s ih k s t iy n w ah n"):
        live.show(text)
    live.end()
    shown = stream.getvalue()
    assert "\n" not in shown
    states = shown.removeprefix("\r").split("\r")
    assert [state.removesuffix("\x1b[K") for state in states] == [
        *("s", "s ih", "... s t iy n w ah n", "")
    ]
    assert all(len(state.removesuffix("\x1b[K")) < 20 for state in states)


def test_a_growing_text_is_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    live = LiveLine(stream)
    for text in ("s", "s", "s ih"):
        live.show(text)
    live.end()
    assert stream.getvalue() == "... s\n... s ih\n"


def test_progress_is_a_line_a_minute_without_a_terminal() -> None:
    now_s = 0.0
    stream = io.StringIO()
    shown = LineBar("evaluating", Console(file=stream, width=80), lambda: now_s)
    for now_s, done in ((10, 1), (61, 2), (100, 3), (122, 4)):  # noqa: B007 - the clock reads it
        shown.update(done / 10, f"v2: {done}/10")
    assert stream.getvalue().splitlines() == [
        "evaluating: 20%  v2: 2/10",
        "evaluating: 40%  v2: 4/10",
    ]


@pytest.mark.parametrize(
    ("terminal", "text", "shown"),
    [
        (True, "one line of words too long", ["one line of words", "too long"]),
        (True, "at /a/path/longer/than/a/line here", ["at /a/path/longer/than/a/line here"]),
        (False, "one line of words too long", ["one line of words too long"]),
    ],
)
def test_a_terminal_breaks_lines_between_words_and_never_a_path(
    terminal: bool, text: str, shown: list[str]
) -> None:
    stream = io.StringIO()
    print_line(Console(file=stream, width=20, force_terminal=terminal), Text(text))
    assert [line.rstrip() for line in stream.getvalue().splitlines()] == shown


def test_paths_are_shortened_where_they_begin_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "cwd", lambda: Path("/data"))
    monkeypatch.setattr(Path, "home", lambda: Path("/root"))
    said = "features: /data/runs/FP; --out=/root/x '/data/y'"
    assert shortened(said) == "features: runs/FP; --out=~/x 'y'"
    for address in ("s3://bucket/data/runs", "/mnt/data/runs", "file:///data/runs", "/data-2/x"):
        assert shortened(f"at {address}") == f"at {address}"
