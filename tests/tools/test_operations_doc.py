"""docs/operations.md: its commands exist, its settings are taken, and it names every alarm."""

import re
import shlex
from pathlib import Path

import click
import pytest

from simpang.cli import cli
from simpang.install import steps, templates
from simpang_gateway import lines, storecare
from simpang_gateway.messages import MESSAGES
from simpang_gateway.uplink import troubles

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text()


def _commands() -> list[list[str]]:
    found = []
    for block in re.findall(r"^```\n(.*?)^```", TEXT, re.M | re.S):
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("sudo "))
            if words[:1] == ["simpang"]:
                found.append(words[1:])
    found += [shlex.split(words) for words in re.findall(r"`simpang ([a-z-]+ [^`]*)`", TEXT)]
    return [words for words in found if "..." not in words]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_command_is_one(words: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, words
        command, words = found, words[1:]
    options = {name for parameter in command.params for name in parameter.opts}
    assert not {word for word in words if word.startswith("--")} - options


def _alarms() -> set[str]:
    """Every code that the gateway raises as an alarm, read off its source."""
    source = "\n".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    found = set(re.findall(r'(?:raise_|stands|_set|_look_at_file)\(\s*"([a-z]+\.[a-z_]+)"', source))
    found |= {*troubles.CONNECTION, *troubles.REFUSALS, *lines._CODES, *storecare.LASTING}
    found |= {
        code
        for code in storecare.FAILURES
        if code not in ("store.owned", "store.version", "store.foreign")
    }
    found |= {"port.bridge_silent", "port.bridge_channel", "registry.unwritable"}
    return found & MESSAGES.keys()


def test_every_alarm_stands_in_the_table() -> None:
    table = TEXT[TEXT.index("## What each alarm asks for") : TEXT.index("## Changing the configuration")]
    told = set(re.findall(r"`([a-z]+\.[a-z_]+)`", table)) & MESSAGES.keys()
    assert len(told) > 30
    assert _alarms() - told == set()


def test_what_it_says_of_the_unit_is_true() -> None:
    unit = templates.unit(Path("/usr/bin/python3"), steps.CONFIG_FILE)
    for setting in ("WatchdogSec=30", "RestartSec=5", "MemoryMax=192M", "MemorySwapMax=0", "TasksMax=64"):
        assert setting in unit
    for path in (steps.SYSUSERS_FILE, steps.CONFIG_FILE, steps.RULES_FILE, steps.UNIT_FILE, templates.STATE):
        assert f"`{path}`" in TEXT
    for link in re.findall(r"\]\(([a-z-]+\.md)\)", TEXT):
        assert (ROOT / "docs" / link).exists(), link
