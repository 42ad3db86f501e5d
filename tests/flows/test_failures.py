from pathlib import Path

import botocore.exceptions
import pytest
from pydantic import BaseModel

from featurize.stage import PipelineError
from flows.failures import explain
from flows.retries import is_io_error


class Sized(BaseModel):
    size: int


def test_what_a_person_can_mend_is_its_message_in_one_line() -> None:
    assert explain(PipelineError("no corpus;\n  name one")) == ("no corpus; name one", 2)


def test_a_wrapped_mistake_is_found() -> None:
    error = RuntimeError("ray says")
    error.__cause__ = PipelineError("mend this")
    assert explain(error) == ("mend this", 2)


def test_a_validation_error_names_field_and_problem() -> None:
    with pytest.raises(ValueError, match="size") as caught:
        Sized(size="big")  # type: ignore[arg-type]
    message, code = explain(caught.value)
    assert message.startswith("Sized: size: Input should be a valid integer")
    assert code == 2


def test_missing_credentials_name_the_variables() -> None:
    message, code = explain(botocore.exceptions.NoCredentialsError())
    assert "AWS_ACCESS_KEY_ID" in message
    assert code == 2


def test_a_dead_endpoint_is_no_bug() -> None:
    error = botocore.exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
    message, code = explain(error)
    assert "http://127.0.0.1:9" in message
    assert code == 2


def test_the_operating_systems_refusals_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        (tmp_path / "absent").read_bytes()
    message, code = explain(caught.value)
    assert str(tmp_path / "absent") in message
    assert code == 2


def test_a_bug_leaves_its_traceback_in_the_file_named() -> None:
    try:
        raise KeyError("frames")
    except KeyError as error:
        message, code = explain(error)
    assert code == 1
    assert "\n" not in message
    log = Path(message.rsplit(" ", 1)[1])
    try:
        assert "Traceback" in log.read_text()
        assert "test_failures.py" in log.read_text()
    finally:
        log.unlink()


@pytest.mark.parametrize(
    ("error", "worth_it"),
    [
        (ConnectionResetError("reset"), True),
        (TimeoutError("slow"), True),
        (OSError(28, "No space left on device"), True),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), True),
        (botocore.exceptions.NoCredentialsError(), False),
        (FileNotFoundError("gone"), False),
        (PermissionError("not yours"), False),
        (PipelineError("mend me"), False),
        (ValueError("bug"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_input_and_output_are_tried_again(error: Exception, worth_it: bool) -> None:
    assert is_io_error(error) is worth_it


def test_a_terminal_obeys_nothing_that_hostile_input_says() -> None:
    message, _ = explain(PipelineError("no file \x1b]0;owned\x07 \u202e here\n\nmore"))
    assert message.isprintable()
    assert message == "no file \\x1b]0;owned\\x07 \\u202e here more"


def test_endless_input_is_quoted_in_part() -> None:
    message, _ = explain(PipelineError(f"--set x={'A' * 70_000}; mend it"))
    assert len(message) < 1500
    assert message.endswith("; mend it")


def test_credentials_in_an_address_are_not_repeated() -> None:
    message, _ = explain(PipelineError("nothing at http://user:pass@host:1/x, nor s3://k:s@b"))
    assert message == "nothing at http://***@host:1/x, nor s3://***@b"
