"""Messages about the gateway process, its log, alarms and captures."""

from .message import error, info, warning

GATEWAY = {
    "gateway.started": info(
        "gateway {gateway} of site {site} has started: version {version}, store {store}",
        "gateway {gateway} di site {site} mulai berjalan: versi {version}, simpanan {store}",
    ),
    "gateway.stopped": info("gateway {gateway} has stopped", "gateway {gateway} berhenti"),
    "gateway.fault": error(
        "a part of the gateway failed and the whole will start again: {error}",
        "report this line together with the version",
        "satu bagian gateway gagal dan semuanya akan dimulai ulang: {error}",
        "laporkan baris ini beserta versinya",
    ),
    "gateway.stuck": error(
        "{part} makes no progress: if it stays so, systemd's watchdog starts the gateway anew",
        "nothing to do if it happens once; look at disk and log where it comes again",
        "{part} tidak maju: bila tetap begitu, watchdog systemd memulai ulang gateway",
        "tidak perlu apa-apa bila sekali; periksa disk dan log bila terulang",
    ),
    "gateway.reloaded": info(
        "the configuration was read again: {changes} changes; waiting for a restart: {restart}",
        "konfigurasi dibaca ulang: {changes} perubahan; menunggu mulai ulang: {restart}",
    ),
    "gateway.reload_refused": error(
        "the configuration was not taken, and nothing has changed: {error}",
        "correct the file, then `simpang gateway reload`",
        "konfigurasi tidak diterima, dan tidak ada yang berubah: {error}",
        "perbaiki berkasnya, lalu `simpang gateway reload`",
    ),
    "gateway.stop_forced": warning(
        "the gateway ended although something still hung {seconds} s after it was told to stop",
        "nothing is lost; look at disk and brokers if it happens again",
        "gateway berakhir walau masih ada yang macet {seconds} s setelah diminta berhenti",
        "tidak ada yang hilang; periksa disk dan broker bila terulang",
    ),
    "alarm.raised": warning(
        "the alarm {alarm} {key} is on",
        "look at that alarm: `simpang gateway status`",
        "alarm {alarm} {key} menyala",
        "lihat alarm itu: `simpang gateway status`",
    ),
    "alarm.cleared": info("the alarm {alarm} {key} is over", "alarm {alarm} {key} sudah berakhir"),
    "events.dropped": warning(
        "{count} events were dropped because the log could not be written fast enough",
        "check the disk of [log] path, or who reads the gateway's output",
        "{count} event dibuang karena log tidak tertulis cukup cepat",
        "periksa disk [log] path, atau siapa yang membaca keluaran gateway",
    ),
    "log.failed": error(
        "the log {path} cannot be written: {error}",
        "check [log] path, its folder's permissions and free space",
        "log {path} tidak dapat ditulis: {error}",
        "periksa [log] path, hak akses foldernya, dan ruang kosong",
    ),
    "capture.damaged": warning(
        "line {line} of a capture cannot be read: {error}",
        "make the capture anew if it matters; the other lines are read all the same",
        "baris {line} dari rekaman tidak dapat dibaca: {error}",
        "rekam ulang bila penting; baris lain tetap dibaca",
    ),
    "capture.dropped": warning(
        "{count} lines of the capture {path} were left out: the disk was too slow or full",
        "the capture goes on; take one port alone, or a faster disk, where every byte matters",
        "{count} baris rekaman {path} tidak tertulis: disk terlalu lambat atau penuh",
        "perekaman berlanjut; rekam satu port saja, atau pakai disk lebih cepat, bila setiap byte penting",
    ),
    "capture.failed": error(
        "the capture {path} cannot be written: {error}",
        "check [capture] path, its folder's permissions and free space",
        "rekaman {path} tidak dapat ditulis: {error}",
        "periksa [capture] path, hak akses foldernya, dan ruang kosong",
    ),
    "metrics.address": warning(
        "/metrics and /health cannot be served at {listen}: {error}",
        "set [metrics] listen to a free port, or leave it out; it is tried again every minute",
        "/metrics dan /health tidak dapat dilayani di {listen}: {error}",
        "isi [metrics] listen dengan port yang bebas, atau hapus; dicoba lagi setiap menit",
    ),
}
