"""Prefect artifacts: what a run leaves behind in the Prefect UI.

Keys are lower-case letters, digits and dashes; values are plain Python and finite, because the
server stores anything else wrongly or not at all.
"""

import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from evaluation.comparison import escape_markdown
from evaluation.figures import plot_words
from featurize.stage import Location
from flows.pictures import picture

_LOGGER = logging.getLogger(__name__)
_UPDATE_INTERVAL_S = 1.0
_PAUSE_S = 60.0
"""After a failed update, before the next: the work shall not wait for each."""


def artifact_key(*parts: str) -> str:
    """A key Prefect takes: lower-case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-") or "artifact"


def plain_cell(value: object) -> str | int | float | None:
    """A table cell the server can store: NumPy scalars become Python's, NaN and inf text."""
    if value is None or isinstance(value, bool | str):
        return None if value is None else str(value)
    if isinstance(value, int):
        return value
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else str(number)


def publish_table(
    key: str, rows: Sequence[Mapping[str, object]], description: str | None = None
) -> None:
    """Publish a table artifact of the current run."""
    table = [{name: plain_cell(value) for name, value in row.items()} for row in rows]
    create_table_artifact(table=table, key=key, description=description)


def publish_markdown(key: str, markdown: str, description: str | None = None) -> None:
    """Publish a markdown artifact of the current run."""
    create_markdown_artifact(markdown=markdown, key=key, description=description)


def publish_link(key: str, location: Location, text: str) -> None:
    """Publish where a result lies."""
    link = location.uri if not location.is_local else f"file://{location.uri}"
    create_link_artifact(link=link, link_text=location.uri, key=key, description=text)


def publish_picture(key: str, png: bytes) -> None:
    """Publish a plot under the title and words that it carries.

    As markdown: an image artifact would show its whole data address as text.
    """
    title, words = plot_words(png)
    markdown = f"## {escape_markdown(title)}\n\n{picture(png)}\n\n{escape_markdown(words)}\n"
    publish_markdown(key, markdown, title)


class LiveArtifact:
    """An artifact of the current run that changes while it works, safe to change from any thread.

    Prefect's own ``update_progress_artifact`` does nothing outside the run's context, where a
    training callback stands; the client works everywhere. A server that cannot be reached never
    stops the work: it is said once in the log, and tried again after a while.
    """

    def __init__(self, created: object) -> None:
        self._id = UUID(str(created))
        self._next_try_s = -math.inf

    def change(self, change: ArtifactUpdate, *, is_last: bool = False) -> None:
        """Put new content in place of the old.

        Args:
            is_last: whether no other content is to come, so that a lost one would stay lost.
        """
        if not is_last and time.monotonic() < self._next_try_s:
            return
        try:
            with get_client(sync_client=True) as client:
                client.update_artifact(self._id, change)
        except Exception as error:
            if self._next_try_s == -math.inf:
                _LOGGER.warning("progress cannot be published to Prefect at present: %s", error)
            self._next_try_s = time.monotonic() + _PAUSE_S


class ProgressArtifact(LiveArtifact):
    """A live progress artifact of the current run."""

    def __init__(self, key: str, description: str) -> None:
        super().__init__(create_progress_artifact(progress=0.0, key=key, description=description))
        self._last_update_s = -math.inf

    def update(self, share: float, description: str | None = None) -> None:
        """Move the artifact, at most once a second save for the end.

        Args:
            share: done, from 0 to 1.
            description: replaces the words beside it.
        """
        now_s = time.monotonic()
        if share < 1.0 and now_s - self._last_update_s < _UPDATE_INTERVAL_S:
            return
        self._last_update_s = now_s
        percent = 100.0 * min(max(float(share), 0.0), 1.0) if math.isfinite(share) else 0.0
        change = ArtifactUpdate(data=percent)
        if description is not None:
            change = ArtifactUpdate(data=percent, description=description)
        self.change(change, is_last=share >= 1.0)
