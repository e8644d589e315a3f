"""Messages about ports."""

from .message import error, info, warning

PORT = {
    "port.open": info("port {port} is open on {url}", "port {port} terbuka di {url}"),
    "port.missing": error(
        "port {port}: {url} is not there",
        "plug the adapter in, or correct url in [[port]]",
        "port {port}: {url} tidak ada",
        "pasang adaptornya, atau perbaiki url di [[port]]",
    ),
    "port.busy": error(
        "port {port}: {url} is in use by another program",
        "close that program; `fuser {url}` names it",
        "port {port}: {url} sedang dipakai program lain",
        "tutup program itu; `fuser {url}` menyebutkannya",
    ),
    "port.permission": error(
        "port {port}: no permission to open {url}",
        "add the user to the group dialout and log in again",
        "port {port}: tidak ada izin membuka {url}",
        "tambahkan pengguna ke grup dialout lalu masuk lagi",
    ),
    "port.lost": error(
        "port {port}: {url} was lost: {error}",
        "check the cable and its supply; the gateway goes on trying",
        "port {port}: {url} terputus: {error}",
        "periksa kabel dan catu dayanya; gateway terus mencoba",
    ),
    "port.failed": error(
        "port {port}: {url} cannot be opened: {error}",
        "check url and baud in [[port]]",
        "port {port}: {url} tidak dapat dibuka: {error}",
        "periksa url dan baud di [[port]]",
    ),
    "port.node_silent": warning(
        "node {node} does not answer on port {port}",
        "check its supply, the pair A/B and its baud; the gateway goes on asking every 10 s",
        "node {node} tidak menjawab di port {port}",
        "periksa catu dayanya, pasangan A/B dan baud-nya; gateway terus bertanya tiap 10 s",
    ),
    "port.babble": warning(
        "port {port}: the line never falls silent, so nodes can hardly be asked",
        "look for a node that keeps sending, a missing bias or swapped wires A/B",
        "port {port}: jalur tidak pernah diam, sehingga node sulit ditanya",
        "cari node yang terus mengirim, bias yang tidak ada, atau kabel A/B yang tertukar",
    ),
    "port.bridge": info(
        "port {port}: bridge {version} is on channel {channel}, {uptime} s after its start (cause {cause})",
        "port {port}: bridge {version} di kanal {channel}, {uptime} dtk setelah mulai (sebab {cause})",
    ),
    "port.bridge_silent": error(
        "port {port}: the bridge at {url} says nothing",
        "check its supply, the cable, and that baud in [[port]] is the bridge's; else restart or flash it",
        "port {port}: bridge di {url} tidak bersuara",
        "periksa catu daya, kabel, dan baud di [[port]]; jika tetap, nyalakan ulang atau flash lagi",
    ),
    "port.bridge_channel": error(
        "port {port}: the bridge stays on channel {channel}, not {wanted}",
        "set channel in [[port]] to one that its country allows, 1 to 11 everywhere",
        "port {port}: bridge tetap di kanal {channel}, bukan {wanted}",
        "isi channel di [[port]] dengan kanal yang diizinkan, 1 sampai 11 selalu boleh",
    ),
}
