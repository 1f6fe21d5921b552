"""System tools that tests use: where one is missing, the test is skipped and names it, and in CI it fails. Stable names of tests."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

# Two workers test at once, and each would take the cores from the other.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

STRICT = "TUNESMITH_REQUIRE_TOOLS"
"""Environment variable. `.ci/run` sets it to 1, so that a test which cannot run there fails and does not pass unseen."""
_COMMANDS = {"chromium": ("chromium", "chromium-browser", "google-chrome")}
_PACKAGES = {"node": "nodejs", "promtool": "prometheus", "systemd-analyze": "systemd"}


def require_tool(name: str) -> str:
    """Path of a system tool.

    Args:
        name: such as `chromium`, `node` or `strace`; one of several names under which systems know it is enough.
    """
    for command in _COMMANDS.get(name, (name,)):
        if found := shutil.which(command):
            return found
    missing = f"{name} is not on this machine; `apt-get install {_PACKAGES.get(name, name)}` brings it"
    if os.environ.get(STRICT) == "1":
        pytest.fail(f"{missing}. {STRICT}=1 allows no skip", pytrace=False)
    pytest.skip(missing)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: an archive holds the time at which it was made, and all workers must name a test alike."""
    return argname if isinstance(val, bytes) else None


def pytest_configure() -> None:
    """A shell starts what it puts into the background with Ctrl-C ignored, and every process that a test interrupts would inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
