"""What a second attempt at a forced run does: it goes on, it does not start over."""

from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from flows.retries import is_first_attempt


@pytest.mark.parametrize(("run_count", "is_first"), [(0, True), (1, True), (2, False)])
def test_a_retried_flow_run_is_no_first_attempt(run_count: int, is_first: bool) -> None:
    run = FlowRun(flow_id=uuid4(), run_count=run_count)
    with FlowRunContext.model_construct(flow_run=run):
        assert is_first_attempt() is is_first


def test_outside_a_run_every_attempt_is_the_first() -> None:
    assert is_first_attempt()
