import base64
import io
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prefect.client.schemas.actions import ArtifactUpdate

from evaluation.figures import INK, finish, new_figure
from featurize.stage import Location
from flows import artifacts
from flows.artifacts import LiveArtifact, artifact_key, plain_cell
from flows.pictures import for_any_page, picture, png_data_uri
from flows.report_link import REPORTS_ROOT, REPORTS_URL, report_address

# One clear pixel, as other tools write it: no title, no words.
PNG_OF_NOTHING = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(16))


@given(st.lists(st.text(), max_size=4))
def test_keys_are_ones_prefect_takes(parts: list[str]) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", artifact_key(*parts))


def test_keys_keep_what_can_be_kept() -> None:
    assert artifact_key("train", "V2 / 6_bits") == "train-v2-6-bits"


@given(st.floats(width=32) | st.integers() | st.text() | st.booleans() | st.none())
def test_cells_are_valid_json_and_finite(value: object) -> None:
    for cell in (value, np.float32(value) if isinstance(value, float) else value):
        plain = plain_cell(cell)
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        assert type(plain) in (str, int, float, type(None))


def test_cells_keep_finite_numbers_and_spell_the_others() -> None:
    assert plain_cell(np.float32(0.5)) == 0.5
    assert plain_cell(np.int64(3)) == 3
    assert plain_cell(math.inf) == "inf"
    assert plain_cell(math.nan) == "nan"


def test_images_become_data_addresses() -> None:
    uri = png_data_uri(PNG)
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == PNG


def test_what_is_no_png_or_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        png_data_uri(b"<svg/>")
    with pytest.raises(ValueError, match="artifacts hold up to"):
        png_data_uri(PNG + bytes(5 * 2**20))


def test_pictures_carry_their_words() -> None:
    figure = new_figure()
    figure.add_subplot().plot([1, 2])
    plot = finish(figure, "p", "A title", "Falls from 90% to [10%](x) \u2014 \u00fc")
    shown = picture(plot.png)
    assert shown.startswith(
        "![Falls from 90% to \\[10%\\](x) \u2014 \u00fc](data:image/png;base64,"
    )
    assert picture(PNG_OF_NOTHING).startswith("![](data:")


def test_a_plot_suits_a_dark_page_and_a_light_one() -> None:
    """White is clear, ink is a grey between the two, colours stay."""
    squares = Image.new("RGB", (30, 10), "white")
    squares.paste(INK, (10, 0, 20, 10))
    squares.paste("#D55E00", (20, 0, 30, 10))
    stream = io.BytesIO()
    squares.save(stream, format="png")
    shown = Image.open(io.BytesIO(for_any_page(stream.getvalue()))).convert("RGBA")
    paper, ink, colour = (np.array(shown.getpixel((x, 5)), int) for x in (5, 15, 25))
    assert paper[3] == 0
    assert ink[3] > 220
    assert np.abs(ink[:3] - [0x80, 0x88, 0x90]).max() < 12
    assert np.abs(colour - [0xD5, 0x5E, 0x00, 0xFF]).max() < 12


def test_a_report_is_linked_where_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = Location.of("/data/runs/evaluation/0123456789abcdef")
    assert report_address(evaluation) == f"file://{evaluation.uri}/report.html"
    monkeypatch.setenv(REPORTS_URL, "http://127.0.0.1:4201")
    monkeypatch.setenv(REPORTS_ROOT, "/data/runs")
    served = "http://127.0.0.1:4201/evaluation/0123456789abcdef/report.html"
    assert report_address(evaluation) == served
    elsewhere = Location.of("/data/runs2/evaluation/0123456789abcdef")
    assert report_address(elsewhere).startswith("file:///data/runs2/")
    assert report_address(Location.of("s3://b/evaluation/01234567")).startswith("s3://b/")


def test_an_update_that_fails_is_said_once_and_the_last_one_still_arrives(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arrived: list[object] = []
    is_down = True

    class Client:
        def __enter__(self) -> "Client":
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update_artifact(self, _id: object, change: ArtifactUpdate) -> None:
            if is_down:
                raise ConnectionError("the server restarts")
            arrived.append(change.data)

    now_s = 0.0
    monkeypatch.setattr(artifacts, "get_client", lambda **_: Client())
    monkeypatch.setattr(artifacts.time, "monotonic", lambda: now_s)
    artifact = LiveArtifact("00000000-0000-0000-0000-000000000001")
    artifact.change(ArtifactUpdate(data="1"))
    is_down = False
    artifact.change(ArtifactUpdate(data="2"))
    assert arrived == [], "the work does not wait for each"
    artifact.change(ArtifactUpdate(data="3"), is_last=True)
    now_s = 61.0
    artifact.change(ArtifactUpdate(data="4"))
    assert arrived == ["3", "4"]
    assert caplog.text.count("cannot be published") == 1
