"""Messages about what the owner does with his data: export, replay, backup, restore."""

from .message import error, info, warning

EXPORT = {
    "export.not_open": error(
        "the gateway has not opened its store yet",
        "look at its alarms (`simpang gateway status`) and try again when it works",
        "gateway belum membuka simpanannya",
        "lihat alarmnya (`simpang gateway status`) dan coba lagi bila sudah bekerja",
    ),
    "export.no_store": error(
        "there is no store at {path}",
        "check [gateway] state in the configuration; a gateway that never ran has no records",
        "tidak ada simpanan di {path}",
        "periksa [gateway] state di konfigurasi; gateway yang belum pernah berjalan tidak punya record",
    ),
    "export.time": error(
        "{found} is not a time",
        "give a date and time such as 2026-11-24T08:00:00+07:00, a date, or Unix seconds",
        "{found} bukan waktu",
        "beri tanggal dan waktu seperti 2026-11-24T08:00:00+07:00, tanggal saja, atau detik Unix",
    ),
    "export.range": error(
        "the range from {first} to {last} is empty",
        "give a --from that is earlier than --to",
        "rentang dari {first} sampai {last} kosong",
        "beri --from yang lebih awal daripada --to",
    ),
    "export.exists": error(
        "{path} is already there",
        "choose another file, or replace it with --force",
        "{path} sudah ada",
        "pilih berkas lain, atau ganti dengan --force",
    ),
    "export.unwritable": error(
        "{path} cannot be written: {error}",
        "give a place with enough room that you may write to; what was written so far stays in {part}",
        "{path} tidak dapat ditulis: {error}",
        "beri tempat yang cukup luas dan boleh Anda tulisi; yang sudah tertulis tetap ada di {part}",
    ),
    "export.one_stream": error(
        "{format} holds one stream a file",
        "choose one with --schema, or give a folder that exists as --out: each stream gets its own file",
        "{format} memuat satu aliran per berkas",
        "pilih satu dengan --schema, atau beri folder yang ada sebagai --out: tiap aliran satu berkas",
    ),
    "export.no_parquet": error(
        "Parquet needs the package pyarrow, which is not installed",
        "run `pip install 'simpang[parquet]'`, or choose --format csv or jsonl",
        "Parquet memerlukan paket pyarrow, yang belum terpasang",
        "jalankan `pip install 'simpang[parquet]'`, atau pilih --format csv atau jsonl",
    ),
    "export.needs_file": error(
        "{format} cannot go to standard output",
        "give a file with --out",
        "{format} tidak dapat dikirim ke keluaran standar",
        "beri berkas dengan --out",
    ),
    "export.store_changed": error(
        "the gateway began another store while it was read: {found} instead of {expected}",
        "run the export again; what was read of the old store stays in the file ending in .part",
        "gateway memulai simpanan lain saat dibaca: {found}, bukan {expected}",
        "ulangi ekspor; yang terbaca dari simpanan lama tetap ada di berkas berakhiran .part",
    ),
}

REPLAY = {
    "replay.range": error(
        "the range from {first} to {last} is empty",
        "give a first time that is not after the last one",
        "rentang dari {first} sampai {last} kosong",
        "beri waktu awal yang tidak melewati waktu akhir",
    ),
    "replay.no_range": error(
        "a replay needs to know from when to when",
        "give both --from and --to; they are times of receipt by the gateway",
        "pengiriman ulang perlu tahu dari kapan sampai kapan",
        "beri --from dan --to; keduanya waktu terima di gateway",
    ),
    "replay.no_uplink": error(
        "the configuration has no [[uplink]] to send to",
        "add one and start the gateway again",
        "konfigurasi tidak punya [[uplink]] sebagai tujuan",
        "tambahkan satu lalu jalankan lagi gateway",
    ),
    "replay.uplink": error(
        "there is no uplink {uplink}",
        "use one of: {known}",
        "tidak ada uplink {uplink}",
        "pakai salah satu: {known}",
    ),
    "replay.full": error(
        "{limit} replays are under way already",
        "wait until one is done (see the status), or end all of them with `simpang gateway replay --cancel`",
        "{limit} pengiriman ulang sedang berjalan",
        "tunggu sampai ada yang selesai (lihat status), "
        "atau akhiri dengan `simpang gateway replay --cancel`",
    ),
    "replay.started": info(
        "replay {replay}: {rows} records are sent once more by uplink {uplink}",
        "pengiriman ulang {replay}: {rows} record dikirim sekali lagi oleh uplink {uplink}",
    ),
    "replay.done": info(
        "replay {replay} is done: uplink {uplink} has sent {rows} records; {gone} were no longer there",
        "pengiriman ulang {replay} selesai: uplink {uplink} mengirim {rows} record; {gone} sudah tidak ada",
    ),
    "replay.cancelled": info(
        "replay {replay} was ended: uplink {uplink} had begun to send {rows} records",
        "pengiriman ulang {replay} diakhiri: uplink {uplink} sudah mulai mengirim {rows} record",
    ),
}

BACKUP = {
    "backup.exists": error(
        "{path} is already there",
        "choose another file, or replace it with --force",
        "{path} sudah ada",
        "pilih berkas lain, atau ganti dengan --force",
    ),
    "backup.unwritable": error(
        "the backup {path} cannot be written: {error}",
        "give a place with enough room that you may write to",
        "cadangan {path} tidak dapat ditulis: {error}",
        "beri tempat yang cukup luas dan boleh Anda tulisi",
    ),
    "backup.source": error(
        "{path} belongs into the backup but cannot be read: {error}",
        "run the command as the gateway's user or as root, and correct the path in the configuration",
        "{path} harus masuk cadangan tetapi tidak dapat dibaca: {error}",
        "jalankan perintah sebagai pengguna gateway atau root, dan perbaiki lokasinya di konfigurasi",
    ),
    "backup.no_passphrase": error(
        "there is no terminal to ask for the passphrase",
        "give a file with --passphrase-file: mode 0600, the passphrase as its only line",
        "tidak ada terminal untuk menanyakan frasa sandi",
        "beri berkas dengan --passphrase-file: mode 0600, frasa sandi sebagai satu-satunya baris",
    ),
    "backup.short_passphrase": error(
        "the passphrase has fewer than {limit} characters",
        "take several words that nobody can guess: whoever opens the file can speak as every node",
        "frasa sandi kurang dari {limit} karakter",
        "pakai beberapa kata yang tak tertebak: pembuka berkas ini dapat berbicara sebagai setiap node",
    ),
    "backup.unreadable": error(
        "{path} cannot be read: {error}",
        "check the path and its permissions",
        "{path} tidak dapat dibaca: {error}",
        "periksa lokasi dan hak aksesnya",
    ),
    "backup.foreign": error(
        "{path} is not a backup of a Simpang gateway",
        "give the file that `simpang gateway backup` has written",
        "{path} bukan cadangan gateway Simpang",
        "beri berkas yang ditulis `simpang gateway backup`",
    ),
    "backup.damaged": error(
        "{path} is damaged: its bytes are not those that were written",
        "take another copy of it, or an older backup",
        "{path} rusak: byte-nya bukan yang dulu ditulis",
        "pakai salinan lain, atau cadangan yang lebih lama",
    ),
    "backup.version": error(
        "{path} has format {found}, this program knows {known}",
        "use the newer program that wrote it",
        "{path} berformat {found}, program ini mengenal {known}",
        "pakai program lebih baru yang menulisnya",
    ),
    "backup.passphrase": error(
        "{path} does not open with this passphrase",
        "try again; the file is undamaged, unless somebody changed it on purpose",
        "{path} tidak terbuka dengan frasa sandi ini",
        "coba lagi; berkasnya tidak rusak, kecuali seseorang sengaja mengubahnya",
    ),
}

RESTORE = {
    "restore.exists": error(
        "{path} is not empty, and a restoration overwrites nothing",
        "give folders that are missing or empty, or move the old ones away",
        "{path} tidak kosong, dan pemulihan tidak menimpa apa pun",
        "beri folder yang belum ada atau kosong, atau pindahkan yang lama",
    ),
    "restore.unwritable": error(
        "nothing was restored to {path}: {error}",
        "give a place with enough room that you may write to",
        "tidak ada yang dipulihkan ke {path}: {error}",
        "beri tempat yang cukup luas dan boleh Anda tulisi",
    ),
    "restore.incomplete": error(
        "the backup does not hold a whole gateway: {name} is missing or cannot be used",
        "take another backup; restore by hand what `--list` shows only where there is none",
        "cadangan tidak memuat gateway yang utuh: {name} tidak ada atau tidak dapat dipakai",
        "pakai cadangan lain; pulihkan isi yang ditunjukkan `--list` dengan tangan hanya bila tak ada lagi",
    ),
}

LEDGER = {
    "ledger.account": info(
        "node {node} ({place}): {known} records = {delivered} delivered + {waiting} waiting "
        "+ {aside} set aside + {lost} lost + {before_store} from before this store",
        "node {node} ({place}): {known} record = {delivered} terkirim + {waiting} menunggu "
        "+ {aside} disisihkan + {lost} hilang + {before_store} dari sebelum simpanan ini",
    ),
    "ledger.sum": info(
        "of node {node}, {records} records: {cause}",
        "dari node {node}, {records} record: {cause}",
    ),
    "ledger.range": info(
        "epoch {epoch}, seq {first} to {last} ({records} records), noted {since}: {cause}",
        "epoch {epoch}, seq {first} sampai {last} ({records} record), dicatat {since}: {cause}",
    ),
    "ledger.older": info(
        "of node {node}, {records} more records in epochs too old to be kept one by one",
        "dari node {node}, {records} record lagi di epoch yang terlalu lama untuk disimpan satu per satu",
    ),
    "ledger.no_node": info("there is no node yet", "belum ada node"),
    "ledger.unreadable": warning(
        "{records} rows were damaged so that not even their node can be read",
        "check the card; if it happens again, replace it",
        "{records} baris rusak sehingga node-nya pun tidak terbaca",
        "periksa kartu; jika terulang, ganti kartu",
    ),
}

LOST = {
    "lost.floor": warning(
        "the node gave them up before the gateway had them",
        "look at the node's health: its journal is too small for so long an outage, or its flash fails",
        "node melepasnya sebelum gateway menerimanya",
        "lihat health node: jurnalnya terlalu kecil untuk putus selama itu, atau flash-nya rusak",
    ),
    "lost.journal_full": warning(
        "the node's journal was full: the oldest went",
        "find out why the node had no link for so long",
        "jurnal node penuh: yang tertua dibuang",
        "cari tahu mengapa node begitu lama tanpa sambungan",
    ),
    "lost.journal_damaged": warning(
        "the node's flash lost them",
        "if it happens again, replace the node's board",
        "flash node menghilangkannya",
        "jika terulang, ganti papan node",
    ),
    "lost.store_full": warning(
        "the gateway's store was full before any uplink had delivered them",
        "bring the uplink back sooner, or raise [store] max_mb",
        "simpanan gateway penuh sebelum satu uplink pun mengirimnya",
        "pulihkan uplink lebih cepat, atau naikkan [store] max_mb",
    ),
    "lost.damaged": warning(
        "their rows were damaged on the card",
        "if it happens again, replace the card",
        "barisnya rusak di kartu",
        "jika terulang, ganti kartu",
    ),
    "lost.before_store": info(
        "from before this store, perhaps delivered by the one before: not a loss",
        "dari sebelum simpanan ini, mungkin sudah dikirim simpanan sebelumnya: bukan kehilangan",
    ),
    "lost.other": warning(
        "a cause that this release does not know: {name}",
        "look it up in the documents of the newer release that wrote it",
        "penyebab yang tidak dikenal rilis ini: {name}",
        "cari di dokumen rilis lebih baru yang menulisnya",
    ),
}
