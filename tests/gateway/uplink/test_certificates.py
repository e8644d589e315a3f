"""How long the gateway's certificate will do, and whether its clock can tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import simpang_gateway
from simpang.rig.authority import Authority, Span
from simpang_gateway.clock import VirtualClock
from simpang_gateway.messages import MESSAGES
from simpang_gateway.uplink.certificates import read_validity
from simpang_gateway.uplink.login import WARN_DAYS, CertificateWatch
from simpang_gateway.uplink.troubles import Troubles
from tests.gateway.uplink.bench import Changes, Config, Told

DAY = timedelta(days=1)


@pytest.mark.parametrize("span", [Span(-DAY, DAY), Span(-26_000 * DAY, -DAY), Span(DAY, 40_000 * DAY)])
def test_validity_is_that_of_a_library(tmp_path: Path, span: Span) -> None:
    from cryptography import x509

    text = Authority(tmp_path).client(span=span).cert_file.read_text()
    known = x509.load_pem_x509_certificate(text.encode())
    found = read_validity("a comment\n" + text + text)
    assert found.not_before_s == int(known.not_valid_before_utc.timestamp())
    assert found.not_after_s == int(known.not_valid_after_utc.timestamp())


def test_what_is_no_certificate_is_refused(tmp_path: Path) -> None:
    identity = Authority(tmp_path).client()
    text = identity.cert_file.read_text()
    lines = text.splitlines()
    cut_off = "\n".join([lines[0], *lines[1:4], lines[-1]])
    for wrong in ("", identity.key_file.read_text(), text[:200], cut_off, text.replace(lines[2], "!" * 64)):
        with pytest.raises(ValueError, match="certificate"):
            read_validity(wrong)


class Watched:
    """A watch over a certificate that is valid from the release on for 60 days; `at` is days after that."""

    def __init__(self, folder: Path) -> None:
        start = datetime.fromtimestamp(simpang_gateway.RELEASED_S + 10 * 86_400, UTC)
        now = datetime.now(UTC)
        self.authority = Authority(folder)
        identity = self.authority.client(span=Span(start - now, start + 60 * DAY - now))
        self.config = Config(1, tls=True, cert_file=identity.cert_file, key_file=identity.key_file)
        self.clock = VirtualClock(wall_ms=int(start.timestamp() * 1000))
        self.told = Told(Changes())
        self.watch = CertificateWatch(
            self.config, self.clock, Troubles("city", "host", 7, self.told.emit, self.told.alarm)
        )

    def after(self, days: float) -> dict[str, dict[str, object]]:
        self.clock.step_wall(int(days * 86_400_000))
        self.watch.look()
        return self.told.alarms


def test_certificate_is_an_alarm_from_30_days_before_its_end(tmp_path: Path) -> None:
    one = Watched(tmp_path)
    assert one.after(1) == {}
    assert one.watch.days_left in (58, 59)
    assert one.after(60 - WARN_DAYS - 1.5) == {}
    assert one.after(1)["uplink.cert_expires"]["days"] in (28, 29)
    assert one.after(9)["uplink.cert_expires"]["days"] in (19, 20)
    assert one.told.codes() == ["uplink.cert_expires"]
    alarms = one.after(21)
    assert alarms.keys() == {"uplink.cert_expired"}
    assert one.watch.days_left is not None
    assert one.watch.days_left < 0
    renewed = one.authority.client(span=Span(-DAY, 4000 * DAY))
    assert one.config.cert_file is not None
    one.config.cert_file.write_text(renewed.cert_file.read_text())
    assert one.after(0) == {}
    for code in ("uplink.cert_expires", "uplink.cert_expired", "uplink.clock"):
        assert MESSAGES[code].arguments() <= {"uplink", "file", "date", "days", "now", "least"}


def test_clock_before_the_certificate_or_the_release_is_named_and_judges_nothing(tmp_path: Path) -> None:
    one = Watched(tmp_path)
    assert one.after(-5).keys() == {"uplink.clock"}
    assert one.watch.days_left is None
    assert one.after(6) == {}
    one.config.cert_file = None
    one.config.key_file = None
    assert one.after(-5) == {}
    assert one.after(-10_000).keys() == {"uplink.clock"}
    assert str(one.told.alarms["uplink.clock"]["now"]) < "2000"
    one.config.tls = False
    fresh = CertificateWatch(one.config, one.clock, Troubles("x", "h", 7, one.told.emit, one.told.alarm))
    fresh.look()
    assert len(one.told.codes()) == 2


def test_release_date_is_that_of_this_release() -> None:
    """A clock is judged by it: in the future it would be an alarm on every host."""
    assert datetime.now(UTC).timestamp() > simpang_gateway.RELEASED_S
    root = Path(__file__).parents[3]
    dates = [
        line[line.rindex("(") + 1 : -1]
        for line in (root / "CHANGELOG.md").read_text().splitlines()
        if line.startswith("## ") and "not released" not in line
    ]
    newest = max((datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() for date in dates), default=0)
    assert newest - 86_400 <= simpang_gateway.RELEASED_S
