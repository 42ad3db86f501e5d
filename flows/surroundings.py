"""What a machine's surroundings bring that has nothing to do with the work, and would stop it.

Proxies that loopback must not be asked of, variables that name files which are gone, line ends of
another system in an address, a user id without a home, settings files of the working folder that
Prefect reads and cannot, standard streams that are closed, a terminal that hangs up.
"""

import importlib.util
import logging
import os
import pwd
import signal
import sys
import tempfile
import tomllib
from collections.abc import MutableMapping
from pathlib import Path
from types import FrameType

from featurize.stage import PipelineError

logger = logging.getLogger(__name__)

_ADDRESSES = (
    *("PREFECT_API_URL", "RAY_ADDRESS", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    "MLFLOW_TRACKING_URI",
)
_CERTIFICATE_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = (
    *("ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"),
    *("HTTPS_PROXY", "https_proxy"),
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_FILES_OF_A_HOME = {
    "AWS_CONFIG_FILE": ".aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials",
    "PREFECT_PROFILES_PATH": ".prefect/profiles.toml",
    "RAY_AUTH_TOKEN_PATH": ".ray/auth_token",
}
_SETTINGS_FILES = ("pyproject.toml", "prefect.toml", ".env")


def settle_environment(environment: MutableMapping[str, str] | None = None) -> None:
    """Put right what can be, before Prefect and Ray read the environment.

    A home is found for a user id that has none. Loopback addresses are taken out of the reach of
    proxies; a SOCKS proxy that this installation cannot speak to is left out, with a warning;
    addresses lose blanks and line ends.

    Args:
        environment: changed in place; the process's own where None.
    """
    environment = os.environ if environment is None else environment
    _settle_home(environment)
    for name in _ADDRESSES:
        if name in environment:
            environment[name] = environment[name].strip()
    for name in ("NO_PROXY", "no_proxy"):
        known = [part for part in environment.get(name, "").split(",") if part.strip()]
        missing = [host for host in _LOOPBACK if host not in known]
        environment[name] = ",".join([*known, *missing])
    _leave_out_socks(environment)
    for name in _CERTIFICATE_FILES:
        path = environment.get(name)
        if path and not os.path.exists(path):
            raise PipelineError(f"{name}={path}: no such file; unset it, or name one that is there")
    for file in _SETTINGS_FILES:
        _require_readable(Path(file))


def _settle_home(environment: MutableMapping[str, str]) -> None:
    """A user id that the machine does not know, as containers have it, has no home to write in.

    Prefect, Ray and numba write there. What a home that cannot be written holds for them and for
    S3 is named by its own variables.
    """
    home = environment.get("HOME") or _home_by_user_id()
    if home is not None and _is_writable(Path(home)):
        return
    environment["HOME"] = str(_own_folder())
    if home is None:
        return
    for name, file in _FILES_OF_A_HOME.items():
        if name not in environment and os.path.exists(os.path.join(home, file)):
            environment[name] = os.path.join(home, file)
    logger.warning(
        "the home folder %s cannot be written; Prefect's records and Ray's token go to %s",
        home,
        environment["HOME"],
    )


def _home_by_user_id() -> str | None:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be written, or be made where it is not there yet."""
    present = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    return not present.is_dir() or os.access(present, os.W_OK | os.X_OK)


def _own_folder() -> Path:
    """A folder that is this user's alone."""
    folder = Path(tempfile.gettempdir(), f"spikeline-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PipelineError(
            f"there is no home folder, and {folder} is someone else's; set HOME to a folder of "
            "yours"
        )
    return folder


def _leave_out_socks(environment: MutableMapping[str, str]) -> None:
    if importlib.util.find_spec("socksio") is not None:
        return
    for name in _PROXIES:
        if environment.get(name, "").lower().startswith("socks"):
            logger.warning(
                "%s names a SOCKS proxy, which this installation cannot use; it is left out "
                "(pip install socksio brings what it needs)",
                name,
            )
            del environment[name]


def _require_readable(file: Path) -> None:
    """Prefect reads these files of the working folder, and stops at one that does not parse."""
    if not file.is_file():
        return
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".toml":
            tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{file.absolute()} cannot be read ({str(error).splitlines()[0]}), and Prefect takes "
            "settings from it; mend it, or start the command in another folder"
        ) from error


def open_closed_streams() -> None:
    """Give closed standard streams somewhere to go; results that nobody can read are not lost."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is the closed one.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        if sys.stderr is not None:
            sys.stderr.write("spikeline: standard output is closed; the result is not shown\n")
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def interrupt_on_hangup() -> None:
    """Treat the end of the terminal as Ctrl-C: a message, and nothing is left behind.

    Where hangups are ignored (``nohup``), they stay ignored.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, interrupt)
