"""A gateway process dies with its card; one made from the backup serves the real firmware, untouched."""

import asyncio
import shutil
import sqlite3
from collections import defaultdict
from functools import partial
from pathlib import Path

from click.testing import CliRunner

from hil_tests.site import until
from simpang.backup import sealing
from simpang.cli import cli
from simpang.rig.gateway import GatewayProcess
from simpang.rig.node import VirtualNode

CONFIG = {"v": 1, "record": {"interval_ms": 100}}
WORDS = "seven horses wait at the junction"


def _rows(state: Path) -> set[tuple[int, int]]:
    """(epoch, seq) of every row in the store of a gateway that has ended."""
    connection = sqlite3.connect(state / "store.db")
    found = connection.execute("select k & 0xffffff, seq from record").fetchall()
    connection.close()
    return set(found)


async def test_gateway_from_a_backup_goes_on_where_the_dead_one_was(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sealing, "seal", partial(sealing.seal, cost=sealing.Cost(n=16)))
    words = tmp_path / "words"
    words.write_text(WORDS)
    words.chmod(0o600)
    gateway = GatewayProcess(tmp_path / "gateway", settings={"store": {"commit_ms": 20}})
    _, key = gateway.add_node("junction")
    node = VirtualNode("n1", tmp_path / "n1", config=CONFIG, key=key, link=2)
    gateway.set_port("line1", node.url)

    async def simpang(*arguments: object) -> None:
        words = ["gateway", *map(str, arguments)]
        result = await asyncio.to_thread(CliRunner().invoke, cli, words)
        assert result.exit_code == 0, result.output

    try:
        await node.power_on()
        await gateway.start()
        await until(gateway, lambda status: (status["store"]["rows"] or 0) >= 5)
        backup = tmp_path / "a.backup"
        await simpang("backup", "--config", gateway.config, "--out", backup, "--passphrase-file", words)
        # Another boot, and more records, of which the backup knows nothing.
        await node.cut_power()
        await node.power_on()
        rows = (await gateway.status())["store"]["rows"]
        await until(gateway, lambda status: (status["store"]["rows"] or 0) >= rows + 5)
        boots = node.boots
        gateway.kill()
        first = _rows(gateway.state)
        shutil.rmtree(gateway.state)
        new = tmp_path / "new"
        await simpang("restore", backup, "--to", new, "--passphrase-file", words)
        gateway.config, gateway.state = new / "gateway.toml", new / "state"
        await gateway.start()
        status = await until(gateway, lambda status: (status["store"]["rows"] or 0) >= 10)
        assert set(status["lost"]) <= {"before_store"}
        # Its epoch is one that no gateway has ever heard.
        assert status["nodes"][0]["epoch"] > max(epoch for epoch, _ in first) + 1024
        assert gateway.stop() == 0
        second = _rows(gateway.state)
    finally:
        gateway.kill()
        await node.stop()
    assert node.boots == boots, "nobody touched it"
    # Whatever the first gateway did not keep, the second has: no record of any epoch is missing.
    seqs = defaultdict(set)
    for epoch, seq in first | second:
        seqs[epoch].add(seq)
    assert len(seqs) >= 2
    for epoch, found in seqs.items():
        assert found == set(range(max(found) + 1)), epoch
