import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import botocore.exceptions
import httpx
import numpy as np
import pytest
import torch
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


def _decoding() -> None:
    b"A caf\xe9 words".decode("utf-8")


def _encoding() -> None:
    "caf\u00e9".encode("ascii")


def _odd_name() -> None:
    b"caf\xe9.flac".decode("utf-8", "surrogateescape").encode()


def _allocation() -> None:
    np.empty(2**48)


def _torch_allocation() -> None:
    torch.empty(2**55)


def _missing_extra() -> None:
    raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime.capi")


def _broken_requirement() -> None:
    raise ImportError("libsndfile.so: cannot open", name="soundfile")


def _answered(status: int) -> None:
    request = httpx.Request("POST", "http://127.0.0.1:4200/api/flow_runs/")
    httpx.Response(status, request=request).raise_for_status()


def _refused_server() -> None:
    httpx.get("http://127.0.0.1:9/api", trust_env=False)


def _overloaded_server() -> None:
    _answered(503)


@pytest.mark.parametrize(
    ("fail", "told"),
    [
        (_refused_server, r"the Prefect server stopped answering .*run the same command again"),
        (_overloaded_server, r"the Prefect server stopped answering .*503"),
        (_decoding, r"not utf-8 text: byte 5 is 0xe9, in b'A caf\\xe9 words'; convert it to UTF-8"),
        (_encoding, r"ascii has no '\\xe9'.*PYTHONUTF8=1"),
        (_odd_name, r"a name is not UTF-8, in 'caf\\udce9.flac'; rename it"),
        (_allocation, "the memory is not enough; take a smaller batch_size"),
        (_torch_allocation, "the memory is not enough; take a smaller batch_size"),
        (_missing_extra, r"onnxruntime is missing.*pip install 'spikeline\[export\]'"),
        (_broken_requirement, "soundfile is missing or broken.*--force-reinstall soundfile"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_known_kinds_are_no_bugs(fail: Callable[[], None], told: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each fails in its own way
        fail()
    message, code = explain(caught.value)
    assert re.search(told, message), message
    assert code == 2


def test_a_wrong_request_is_a_bug() -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        _answered(422)
    assert explain(caught.value)[1] == 1


def test_a_missing_module_of_our_own_is_a_bug() -> None:
    message, code = explain(ModuleNotFoundError("No module named 'flows.x'", name="flows.x"))
    Path(message.rsplit(" ", 1)[1]).unlink()
    assert code == 1


@pytest.mark.parametrize(
    "command",
    [
        ["-c", "from flows.cli import main; main()", "recipes"],
        ["-c", "from flows.cli import main; main()", "recipes", "mini-librispeech"],
        ["-m", "infra.report_server", "--help"],
    ],
    ids=lambda command: " ".join(command[1:3])[-20:],
)
def test_python_without_docstrings_and_assertions_runs_it(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-OO", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


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
