"""The page of a pipeline's run, with a server that only keeps what it was last told."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows import artifacts, overview, progress
from flows.overview import Curve, current_overview
from training.manifest import EpochMetrics
from training.train_config import CurriculumStage, OptimizerConfig, TrainConfig


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pages: list[str] = []

    class Client:
        def __enter__(self) -> "Client":
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update_artifact(self, _id: object, change: Any) -> None:
            pages.append(change.data)

    def create(markdown: str, **_: object) -> str:
        pages.append(markdown)
        return "00000000-0000-0000-0000-000000000001"

    monkeypatch.setattr(overview, "create_markdown_artifact", create)
    monkeypatch.setattr(artifacts, "get_client", lambda **_: Client())
    return pages


def epoch(number: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=number,
        train_loss=2.5 / (number + 1),
        dev_loss=2.0,
        dev_error=0.5 / (number + 1),
        learning_rate=1e-3,
        frames_per_s=1000.0,
        num_frames=10,
        num_utterances=1,
        seconds=1.0,
        spike_density=(0.5, 0.25),
    )


def test_the_page_grows_and_ends_with_the_result_first(told: list[str]) -> None:
    config = TrainConfig(curriculum=(CurriculumStage(num_epochs=3),))
    with overview.overview("demo", "What it is.", ["making features", "training v2"]) as page:
        assert current_overview() is page
        assert "What it is." in told[-1]
        assert "| training v2 | waiting |" in told[-1]
        line = page.begin("training v2")
        assert "| training v2 | starting |" in told[-1], "a stage that begins is shown at once"
        page.update(line, 0.0, "starting Ray's workers")
        assert "| training v2 | starting | starting Ray's workers |" in told[-1]
        for number in range(2):
            metrics = tuple(epoch(n) for n in range(number + 1))
            page.add_epoch("v2", Curve(config, metrics))
        assert "| 2/3 | 1.250 | 25.0% | 1,000 | 50% 25% |" in told[-1]
        assert told[-1].count("data:image/png;base64,") == 1
        assert told[-1] != told[-2], "curves grow"
        page.update(line, 1.0, "trained, dev error 25%")
        page.finish("**The result**")
    assert current_overview() is None
    last = told[-1]
    assert last.index("The result") < last.index("## Stages") < last.index("## Training")
    assert "| training v2 | done | trained, dev error 25% |" in last


def test_two_trainings_of_one_title_have_a_line_each(told: list[str]) -> None:
    with overview.overview("sweep", "x", ["training v2", "training v2"]) as page:
        for learning_rate in (1e-3, 2e-3):
            optimizer = OptimizerConfig(learning_rate=learning_rate)
            page.add_epoch("v2", Curve(TrainConfig(optimizer=optimizer), (epoch(0),)))
        page.update(page.begin("training v2"), 1.0, "one")
        page.update(page.begin("training v2"), 1.0, "two")
    assert "done | one |" in told[-1]
    assert "done | two |" in told[-1]
    assert told[-1].count("training v2") == 2
    assert "**v2**" in told[-1]
    assert "**v2 (2)**" in told[-1]


def test_a_stage_that_is_tried_again_keeps_its_line(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "ProgressArtifact", lambda *_: SimpleNamespace(update=print))
    with overview.overview("demo", "x", ["making features"]):
        with pytest.raises(OSError, match="full"), progress.stage_progress("making features"):
            raise OSError("the disk is full")
        assert "| making features | failed |" in told[-1]
        with progress.stage_progress("making features") as again:
            assert "| making features | starting |" in told[-1]
            again.update(1.0, "made")
    assert told[-1].count("making features") == 1
    assert "| making features | done | made |" in told[-1]


def test_short_epochs_share_a_drawing_and_the_last_is_of_all(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = overview.draw_learning_curves

    def counted(curves: dict[str, Curve]) -> Any:
        drawn.append(sum(len(curve.metrics) for curve in curves.values()))
        return draw(curves)

    monkeypatch.setattr(overview, "draw_learning_curves", counted)
    monkeypatch.setattr(overview, "_DRAW_INTERVAL_S", 1e9)
    config = TrainConfig(curriculum=(CurriculumStage(num_epochs=4),))
    with overview.overview("demo", "x", ["training v2"]) as page:
        for number in range(4):
            page.add_epoch("v2", Curve(config, tuple(epoch(n) for n in range(number + 1))))
        assert drawn == [1]
        assert "| 4/4 |" in told[-1]
        page.finish("**The result**")
    assert drawn == [1, 4]
