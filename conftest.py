"""What tests of parts and of whole nodes share: a seed that is printed and can be set, and a real broker."""

import os
import random
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent
FINDER = ROOT / "scripts" / "get-mosquitto"


class MosquittoCommand(NamedTuple):
    """How to start mosquitto: `subprocess.Popen([*argv, "-c", path], env=env)`.

    Wait for a CONNACK before you rely on it: a SIGTERM sent after it says "running" and before its loop
    has begun is lost.
    """

    argv: list[str]
    env: dict[str, str]


@cache
def find_mosquitto() -> tuple[str | None, str]:
    """Returns the path of a broker that runs here and "", or None and why there is none."""
    found = subprocess.run(["sh", str(FINDER), "--find"], capture_output=True, text=True, check=False)
    if found.returncode:
        return None, " ".join(found.stderr.split())
    return found.stdout.strip(), ""


def in_ci() -> bool:
    """Whether this run guards the main branch: nothing may be skipped for want of a tool then."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed",
        type=int,
        default=os.environ.get("SIMPANG_SEED"),
        help="seed of the tests that use chance (else SIMPANG_SEED, else a new one each run)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(2**30)
    # Programs that tests start take the same seed.
    os.environ["SIMPANG_SEED"] = str(config.option.seed)


def pytest_report_header(config: pytest.Config) -> list[str]:
    path, why = find_mosquitto()
    return [
        f"seed: {config.option.seed} (the same again: SIMPANG_SEED={config.option.seed})",
        f"broker: {path or why}",
    ]


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """The seed of this run, as printed at its beginning; below 2**30, so that nodes can take it too."""
    value: int = pytestconfig.option.seed
    return value


@pytest.fixture(scope="session")
def mosquitto_command() -> MosquittoCommand:
    """How to start a real mosquitto. Skips the test where there is none; fails it in CI."""
    path, why = find_mosquitto()
    if path is None:
        if in_ci():
            pytest.fail(why)
        pytest.skip(why)
    return MosquittoCommand([path], dict(os.environ))
