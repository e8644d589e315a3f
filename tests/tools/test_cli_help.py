"""The command line as a whole: help, exit status, error lines, what it loads."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from simpang import cli as cli_module
from simpang.cli import COMMANDS, cli, run
from simpang_gateway import __version__

Words = tuple[str, ...]
SIMPANG = [sys.executable, "-c", "from simpang.cli import main; main()"]


def _walk(command: click.Command, path: Words = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _walk(child, (*path, name))


ALL = [path for path, _ in _walk(cli)]


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "simpang")
def test_every_command_has_help_with_an_example(path: Words) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"], prog_name="simpang")
    assert result.exit_code == 0
    example = result.output.partition("Example:\n")[2]
    assert re.match(r"    simpang \w", example), f"simpang {' '.join(path)} lacks an example"


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "simpang")
def test_every_option_has_help(path: Words) -> None:
    command = dict(_walk(cli))[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"simpang {' '.join(path)} {parameter.opts[0]}"


def test_every_example_is_a_valid_command_line() -> None:
    for _, command in _walk(cli):
        for line in (command.epilog or "").splitlines():
            words = shlex.split(line.rpartition("| ")[2])
            if words[:1] != ["simpang"]:
                continue
            context, current, rest = click.Context(cli), cli, words[1:]
            while isinstance(current, click.Group):
                name, current, rest = current.resolve_command(context, rest)
                assert current is not None, line
                context = click.Context(current, parent=context, info_name=name)
            current.make_context(name, rest, parent=context.parent)


def test_version_is_that_of_the_gateway() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert result.output == f"simpang {__version__}\n"


def test_help_of_the_program_imports_no_command() -> None:
    code = (
        "import sys\nfrom simpang.cli import run\nassert run(['--help']) == 0\n"
        "assert not {'simpang.cli.gateway', 'simpang.cli.decode', 'rich', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, stdout=subprocess.DEVNULL)


def test_table_of_commands_tells_the_same_as_their_help() -> None:
    for name, (_, line) in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert line.endswith(".")


@pytest.mark.parametrize(
    ("arguments", "cause", "step"),
    [
        (["gatway"], "No such command 'gatway'. Did you mean 'gateway'?", "see `simpang --help`"),
        (
            ["gateway", "chek"],
            "No such command 'chek'. Did you mean 'check'?",
            "see `simpang gateway --help`",
        ),
        (["--what"], "No such option", "see `simpang --help`"),
        (["node", "add"], "Missing option '--place'", "see `simpang node add --help`"),
        (["decode"], "Missing argument 'INPUT'", "see `simpang decode --help`"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    arguments: list[str], cause: str, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("simpang: cli.usage: ")
    assert err.count("\n") == 1
    assert cause in err
    assert f"Next: {step}." in err


def test_without_arguments_the_help_is_shown_and_the_status_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_error_is_told_in_indonesian(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIMPANG_LANG", "id")
    assert run(["decode", "zz"]) == 2
    assert "Langkah berikut: beri berkas" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*SIMPANG, "decode", "2100"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("simpang: cli.io: ")
    assert "Traceback" not in done.stderr


def test_interrupt_ends_quietly_with_status_130() -> None:
    line = json.dumps({"t": 1, "port": "a", "dir": "up", "hex": "4100"}) + "\n"
    with subprocess.Popen(
        [*SIMPANG, "decode", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(line)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["n"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().strip() == ""


def test_reader_that_goes_away_makes_no_traceback(tmp_path: Path) -> None:
    line = json.dumps({"t": 1, "port": "a", "dir": "up", "hex": "4100" * 1000}) + "\n"
    (tmp_path / "capture").write_text(line * 100)
    command = [*SIMPANG, "decode", str(tmp_path / "capture")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 1


def test_main_takes_its_arguments_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["simpang", "--version"])
    with pytest.raises(SystemExit) as caught:
        cli_module.main()
    assert caught.value.code == 0


def test_installed_script_is_this_program() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert 'simpang = "simpang.cli:main"' in text
