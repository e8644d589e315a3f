"""`simpang gateway ledger`: the accounts balance, and every cause is said in words."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from simpang.cli import cli
from simpang_gateway import keystore
from simpang_gateway.errors import SimpangError
from simpang_gateway.keystore import KeyStore
from simpang_gateway.messages import MESSAGES
from simpang_gateway.store import Batch, Cursor, LossRange, accounts
from simpang_gateway.store.accounts import undone
from simpang_protocol.codes import DROP_CAUSES
from simpang_protocol.sessionstate import LOSS_BEFORE_STORE, LOSS_FLOOR
from tests.gateway.gatewaybench import Bench, make_bench, well
from tests.gateway.store.kit import by_hand, opened, records, window

SITE = "semarang-1"


@pytest.fixture
async def config(tmp_path: Path) -> Path:
    """Node 1 has lost some in several ways, node 2 none; nobody has heard node 3."""
    state = tmp_path / "state"
    keystore.create(state, SITE)
    for place in ("Simpang Lima", "Depok", "Pandanaran"):
        KeyStore(state, SITE).add_node(place)
    path = tmp_path / "gateway.toml"
    path.write_text(
        f'[gateway]\nsite = "{SITE}"\nname = "gw"\nstate = "state"\n[[uplink]]\nname = "city"\nhost = "h"\n'
    )
    store = await opened(state, uplinks=("city",))
    # Epoch 6: 40 from before this store. Epoch 7: 0-9 came, 10-12 were given up, 13 and 15 came.
    await store.commit(
        Batch(
            records=(*records(0, 9), *records(13, 13), *records(15, 15)),
            windows=(window(40, epoch=6), window(14, 0b1)),
            losses=(LossRange(1, 6, 0, 39, LOSS_BEFORE_STORE), LossRange(1, 7, 10, 12, LOSS_FLOOR)),
        )
    )
    await store.commit(Batch(records=records(0, 4, node=2), windows=(window(5, node=2),)))
    await store.set_aside(11, "unknown_schema: 9")
    store.advance(Cursor("city", 4, ((11, 14),)))
    await store.close()
    # A row of node 1 that the uplink has passed is damaged on the card.
    by_hand(state, "update record set body = x'00' where id = 5")
    store = await opened(state, uplinks=("city",))
    await store.read(4, 3)
    await store.flush()
    await store.close()
    return path


def _ledger(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["gateway", "ledger", "--config", str(config), *arguments])


async def test_accounts_balance(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "ROWS_WALKED", 3)
    result = await asyncio.to_thread(_ledger, config, "--json")
    assert result.exit_code == 1, result.output
    found = json.loads(result.output)
    one, two, three = found["nodes"]
    assert one == {
        "node": 1, "place": "Simpang Lima", "epochs": 2, "known": 55, "delivered": 5, "waiting": 5,
        "aside": 1, "lost": 4, "before_store": 40, "causes": {"damaged": 1, "floor": 3}, "partial": False,
    }  # fmt: skip
    assert (two["known"], two["delivered"], two["waiting"], two["lost"]) == (5, 2, 3, 0)
    assert (three["known"], three["delivered"], three["epochs"]) == (0, 0, 0)
    for account in found["nodes"]:
        parts = ("delivered", "waiting", "aside", "lost", "before_store")
        assert account["known"] == sum(account[part] for part in parts)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ("55 records = 5 delivered + 5 waiting", "were damaged on the card. Next:", "not a loss")),
        ("id", ("55 record = 5 terkirim + 5 menunggu", "di kartu. Langkah berikut:", "bukan kehilangan")),
    ],
)
async def test_every_cause_is_said_in_words(
    config: Path, monkeypatch: pytest.MonkeyPatch, language: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SIMPANG_LANG", language)
    told = (await asyncio.to_thread(_ledger, config)).output
    for word in words:
        assert word in told, told


async def test_one_node_shows_its_ranges(config: Path) -> None:
    result = await asyncio.to_thread(_ledger, config, "--node", "1")
    assert result.exit_code == 1
    assert "epoch 7, seq 10 to 12 (3 records)" in result.output
    assert "epoch 6, seq 0 to 39 (40 records)" in result.output
    ranges = json.loads((await asyncio.to_thread(_ledger, config, "--node", "1", "--json")).output)["ranges"]
    assert [(loss["epoch"], loss["records"], loss["cause"]) for loss in ranges] == [
        (6, 40, "before_store"), (7, 1, "damaged"), (7, 3, "floor")
    ]  # fmt: skip
    clean = await asyncio.to_thread(_ledger, config, "--node", "2")
    assert clean.exit_code == 0
    unknown = await asyncio.to_thread(_ledger, config, "--node", "9")
    assert isinstance(unknown.exception, SimpangError) and unknown.exception.code == "node.unknown"


def test_every_cause_that_this_release_writes_has_words() -> None:
    for cause in (LOSS_FLOOR, LOSS_BEFORE_STORE, "store_full", "damaged", *DROP_CAUSES.values()):
        assert f"lost.{cause}" in MESSAGES


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path, monkeypatch) as found:
        yield found


async def test_running_gateway_tells_its_accounts(bench: Bench) -> None:
    await well(bench)
    bench.line.create(4)
    await bench.line.wait_until_empty()
    config = bench.folder / "gateway.toml"
    config.write_text(f'[gateway]\nsite = "{SITE}"\nname = "gw-1"\nstate = "state"\n')
    result = await asyncio.to_thread(_ledger, config, "--json")
    assert result.exit_code == 0, result.output
    account = json.loads(result.output)["nodes"][0]
    # No uplink is configured: everything waits.
    assert (account["known"], account["waiting"], account["delivered"]) == (5, 5, 0)


def test_undone_is_what_any_uplink_has_before_it() -> None:
    assert undone([], 5) == [(1, 5)]
    assert undone([Cursor("a", 5)], 5) == []
    assert undone([Cursor("a", 2, ((4, 4),)), Cursor("b", 5)], 6) == [(3, 3), (5, 6)]
    assert undone([Cursor("a", 4), Cursor("b", 1, ((3, 9),))], 6) == [(2, 2), (5, 6)]
