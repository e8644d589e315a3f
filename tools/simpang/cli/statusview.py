"""The status of a gateway for people: what is wrong first and what to do, then how everything is."""

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simpang_gateway.errors import SimpangError
from simpang_gateway.messages import MESSAGES

from .show import plain

WIDTH = 80
NODES_SHOWN = 40
SILENT_S = 3600.0
"""A node that was not heard for so long is listed before the others."""

_LEAD = 11
_WORDS = {
    "en": {
        "well": "all is well",
        "wrong": "needs attention: {count}",
        "up": "version {version}, running for {time}",
        "next": "Next",
        "since": "for {time}",
        "store": "store",
        "records": "{rows} records, {used} of {quota} used, {free} free on the disk",
        "unknown": "not known yet",
        "unhealthy": "cannot store; nodes keep their records",
        "waiting": "{count} wait for the card",
        "aside": "{count} set aside: their schema is unknown",
        "lost": "lost",
        "clock": "clock",
        "synced": "synchronised: {when}",
        "unsynced": "not synchronised; times follow once it is",
        "uplinks": "uplinks",
        "none": "none configured",
        "state": {"up": "up", "connecting": "connecting", "waiting": "down", "stopped": "stopped"},
        "sent": "{delivered} delivered, {backlog} wait",
        "cert": "certificate ends in {days} days",
        "ports": "ports",
        "open": "open",
        "closed": "CLOSED",
        "read": "{up} read, {down} written",
        "bad": "{count} bad frames",
        "nodes": "nodes",
        "heard": "{heard} of {all} heard within the hour",
        "revoked": "revoked",
        "never": "not since the start",
        "ago": "{time} ago",
        "head": ("node", "heard", "port", "records", "place"),
        "more": "and {count} more; --json has all",
    },
    "id": {
        "well": "semua baik",
        "wrong": "perlu perhatian: {count}",
        "up": "versi {version}, berjalan {time}",
        "next": "Langkah berikut",
        "since": "selama {time}",
        "store": "simpanan",
        "records": "{rows} rekaman, {used} dari {quota} terpakai, {free} bebas di disk",
        "unknown": "belum diketahui",
        "unhealthy": "tidak dapat menyimpan; node menahan rekamannya",
        "waiting": "{count} menunggu kartu",
        "aside": "{count} disisihkan: skemanya tidak dikenal",
        "lost": "hilang",
        "clock": "jam",
        "synced": "tersinkron: {when}",
        "unsynced": "belum tersinkron; waktu menyusul setelahnya",
        "uplinks": "uplink",
        "none": "tidak ada",
        "state": {"up": "tersambung", "connecting": "menyambung", "waiting": "putus", "stopped": "berhenti"},
        "sent": "{delivered} terkirim, {backlog} menunggu",
        "cert": "sertifikat berakhir dalam {days} hari",
        "ports": "port",
        "open": "terbuka",
        "closed": "TERTUTUP",
        "read": "{up} dibaca, {down} ditulis",
        "bad": "{count} frame rusak",
        "nodes": "node",
        "heard": "{heard} dari {all} terdengar dalam sejam",
        "revoked": "dicabut",
        "never": "belum sejak mulai",
        "ago": "{time} lalu",
        "head": ("node", "terdengar", "port", "rekaman", "tempat"),
        "more": "dan {count} lagi; --json memuat semuanya",
    },
}


def lines(status: Mapping[str, Any], lang: str) -> Iterator[str]:
    """Yield the status in `lang` (en or id), no line wider than 80 columns."""
    words: Any = _WORDS[lang]
    alarms = sorted(status["alarms"], key=lambda alarm: (alarm["severity"] != "error", alarm["code"]))
    title = f"{status['gateway']} ({status['site']})"
    state = words["wrong"].format(count=len(alarms)) if alarms else words["well"]
    yield _cut(f"{title}: {state}")
    up = words["up"].format(version=status["version"], time=_span(status["uptime_s"], lang))
    yield _cut(up)
    for alarm in alarms:
        yield ""
        yield from _alarm(alarm, status["clock"], words, lang)
    yield ""
    yield from _store(status["store"], status["lost"], words)
    clock = status["clock"]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(clock["unix_s"]))
    yield from _part(words["clock"], [words["synced" if clock["synced"] else "unsynced"].format(when=when)])
    yield from _part(words["uplinks"], [_uplink(up, words) for up in status["uplinks"]] or [words["none"]])
    yield from _part(words["ports"], [_port(port, words) for port in status["ports"]] or [words["none"]])
    yield from _nodes(status["nodes"], words, lang)


def _alarm(
    alarm: Mapping[str, Any], clock: Mapping[str, Any], words: Mapping[str, Any], lang: str
) -> Iterator[str]:
    cause, step = alarm["cause"], alarm["next"]
    arguments = alarm.get("arguments")
    if alarm["code"] in MESSAGES and isinstance(arguments, Mapping):
        error = SimpangError(alarm["code"], **arguments)
        cause, step = error.cause(lang), error.next_step(lang)
    since = alarm["since"]
    age = "" if since is None else words["since"].format(time=_span(clock["unix_s"] - since, lang))
    sign = "!!" if alarm["severity"] == "error" else "! "
    yield _cut(" ".join(filter(None, (sign, alarm["code"], plain("", alarm["key"] or " "), age))))
    yield from _wrapped(plain("", cause), 3)
    yield from _wrapped(f"{words['next']}: {plain('', step).rstrip('.')}.", 3)


def _store(store: Mapping[str, Any], lost: Mapping[str, int], words: Mapping[str, Any]) -> Iterator[str]:
    found = []
    if not store["healthy"]:
        found.append(words["unhealthy"])
    if store["rows"] is None:
        found.append(words["unknown"])
    else:
        sizes = {key: _size(store[f"{key}_bytes"]) for key in ("used", "quota", "free")}
        found.append(words["records"].format(rows=_count(store["rows"]), **sizes))
    if store["waiting"]:
        found.append(words["waiting"].format(count=_count(store["waiting"])))
    if store["aside"]:
        found.append(words["aside"].format(count=_count(store["aside"])))
    yield from _part(words["store"], found)
    if lost:
        told = ", ".join(f"{_count(count)} {cause}" for cause, count in sorted(lost.items()))
        yield from _part(words["lost"], [told])


def _uplink(uplink: Mapping[str, Any], words: Mapping[str, Any]) -> str:
    sent = words["sent"].format(delivered=_count(uplink["delivered"]), backlog=_count(uplink["backlog"]))
    found = [f"{uplink['name']}: {words['state'].get(uplink['state'], uplink['state'])}", sent]
    if uplink.get("cert_days_left") is not None:
        found.append(words["cert"].format(days=uplink["cert_days_left"]))
    return ", ".join(found)


def _port(port: Mapping[str, Any], words: Mapping[str, Any]) -> str:
    found = [f"{port['port']}: {words['open'] if port['open'] else words['closed']}"]
    found.append(words["read"].format(up=_size(port["bytes_up"]), down=_size(port["bytes_down"])))
    if bad := port["bad_crc"] + port["bad_cobs"] + port["overruns"]:
        found.append(words["bad"].format(count=_count(bad)))
    return ", ".join(found)


def _nodes(nodes: Sequence[Mapping[str, Any]], words: Mapping[str, Any], lang: str) -> Iterator[str]:
    active = [node for node in nodes if not node["revoked"]]
    heard = sum(node["silent_s"] is not None and node["silent_s"] < SILENT_S for node in active)
    told = [words["heard"].format(heard=heard, all=len(active))] if nodes else [words["none"]]
    yield from _part(words["nodes"], told)
    # Whoever is missing comes first; revoked ones last.
    order = sorted(nodes, key=lambda node: (node["revoked"], _known_silence(node), node["node"]))
    rows = [tuple(words["head"])] if nodes else []
    for node in order[:NODES_SHOWN]:
        rows.append(
            (
                str(node["node"]),
                _last_heard(node, words, lang),
                plain("", node["port"]),
                _count(node["records"]),
                plain("", node["place"]),
            )
        )
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for row in rows:
        cells = [
            f"{cell:>{widths[at]}}" if at in (0, 3) else f"{cell:<{widths[at]}}"
            for at, cell in enumerate(row[:4])
        ]
        yield _cut("  ".join(["", *cells, row[4]]))
    if len(order) > NODES_SHOWN:
        yield "  " + words["more"].format(count=len(order) - NODES_SHOWN)


def _known_silence(node: Mapping[str, Any]) -> float:
    silent_s = node["silent_s"]
    if silent_s is None:
        return float("-inf")
    return -silent_s if silent_s >= SILENT_S else 0.0


def _last_heard(node: Mapping[str, Any], words: Mapping[str, Any], lang: str) -> str:
    if node["revoked"]:
        return str(words["revoked"])
    if node["silent_s"] is None:
        return str(words["never"])
    return str(words["ago"].format(time=_span(node["silent_s"], lang)))


def _part(name: str, texts: Sequence[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        lead = f"{name if number == 0 else '':<{_LEAD}}"
        yield from textwrap.wrap(
            plain("", text), WIDTH, initial_indent=lead, subsequent_indent=" " * (_LEAD + 2)
        )


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent)


def _cut(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _span(seconds: float, lang: str) -> str:
    """Return a time in its two largest units, such as `3 d 4 h`."""
    units = ("d", "h", "min", "s") if lang == "en" else ("h", "j", "mnt", "d")
    left = max(0, int(seconds))
    counts = []
    for size in (86_400, 3600, 60, 1):
        count, left = divmod(left, size)
        counts.append(count)
    first = next((at for at, count in enumerate(counts) if count), 3)
    shown = [at for at in (first, first + 1) if at < 4 and (counts[at] or at == first)]
    return " ".join(f"{counts[at]} {units[at]}" for at in shown)


def _size(count: int | None) -> str:
    """Return a number of bytes with a unit."""
    if count is None:
        return "?"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def _count(value: int) -> str:
    return f"{value:,}".replace(",", " ")
