"""Messages about the store."""

from .message import error, info, warning

STORE = {
    "store.owned": error(
        "{path} belongs to a running process, pid {pid}",
        "see what it is with `ps -p {pid}`; stop it first, or use the commands that ask a running gateway",
        "{path} sedang dipakai proses lain, pid {pid}",
        "lihat dengan `ps -p {pid}`; hentikan dulu, atau pakai perintah yang bertanya ke gateway berjalan",
    ),
    "store.version": error(
        "{path} has format {found}, this program knows {known}",
        "use the newer program that wrote it",
        "{path} berformat {found}, program ini mengenal {known}",
        "pakai program lebih baru yang menulisnya",
    ),
    "store.damaged": error(
        "{path} is damaged: {error}",
        "check the card; the running gateway sets the file aside and begins a new store",
        "{path} rusak: {error}",
        "periksa kartu; gateway yang berjalan menyisihkan berkas itu dan memulai simpanan baru",
    ),
    "store.foreign": error(
        "{path} is not a Simpang store",
        "move that file away or set [gateway] state to another folder",
        "{path} bukan simpanan Simpang",
        "pindahkan berkas itu atau arahkan [gateway] state ke folder lain",
    ),
    "store.full": error(
        "{path} has no room left: {error}",
        "free space on that disk, or lower [store] max_mb",
        "{path} tidak punya ruang lagi: {error}",
        "kosongkan ruang di disk itu, atau kecilkan [store] max_mb",
    ),
    "store.readonly": error(
        "{path} cannot be written to",
        "check the card and the mount; a worn card turns itself read-only",
        "{path} tidak dapat ditulisi",
        "periksa kartu dan mount; kartu yang aus menjadi hanya-baca",
    ),
    "store.io": error(
        "{path} failed to read or write: {error}",
        "check the card or disk and its supply",
        "{path} gagal dibaca atau ditulis: {error}",
        "periksa kartu atau disk dan catu dayanya",
    ),
    "store.created": info("{path} was made: store {uuid}", "{path} dibuat: simpanan {uuid}"),
    "store.migrated": info(
        "{path} was brought from format {found} to {known}",
        "{path} diubah dari format {found} ke {known}",
    ),
    "store.quarantined": error(
        "{path} was damaged ({error}); it was moved to {moved} and store {uuid} begun",
        "keep the old file for rescue and check the card; nodes, keys and counters are not touched",
        "{path} rusak ({error}); dipindahkan ke {moved} dan simpanan {uuid} dimulai",
        "jaga berkas lama untuk penyelamatan dan periksa kartu; node, kunci, dan hitungan tetap utuh",
    ),
    "store.dropped": warning(
        "{path}: {rows} records that no uplink had delivered were dropped to keep within the quota",
        "bring the uplink back, or raise [store] max_mb; the losses stand in the ledger",
        "{path}: {rows} record yang belum terkirim dibuang agar tetap dalam kuota",
        "pulihkan uplink, atau naikkan [store] max_mb; kehilangan tercatat di buku besar",
    ),
    "store.row_damaged": warning(
        "{path}: row {row} is damaged and was set aside",
        "check the card or disk; the record is declared lost",
        "{path}: baris {row} rusak dan disisihkan",
        "periksa kartu atau disk; record itu dinyatakan hilang",
    ),
    "store.window_damaged": warning(
        "what {path} knew of node {node} in epoch {epoch} is damaged and was left out",
        "nothing at once: the node sends again what it has; if it happens again, replace the card",
        "catatan {path} tentang node {node} di epoch {epoch} rusak dan dilewati",
        "belum perlu apa-apa: node mengirim ulang yang ada padanya; jika terulang, ganti kartu",
    ),
    "store.cursor_damaged": warning(
        "the place of uplink {uplink} in {path} is damaged; it begins again at the oldest record",
        "nothing at once: consumers remove repeated identities; if it happens again, replace the card",
        "posisi uplink {uplink} di {path} rusak; pengiriman diulang dari rekaman tertua",
        "belum perlu apa-apa: penerima membuang yang ganda menurut identitas; jika terulang, ganti kartu",
    ),
    "store.node_share": warning(
        "{path}: node {node} held more than its share of the full store: {rows} of its records were dropped",
        "look why it sends so much; if it is as it should be, raise [limits] node_disk_percent or max_mb",
        "{path}: node {node} memakai lebih dari jatahnya di simpanan yang penuh: {rows} record-nya dibuang",
        "periksa mengapa kirimannya begitu banyak; bila wajar, naikkan node_disk_percent atau max_mb",
    ),
    "store.released": info(
        "{path}: {rows} records whose schema is known now are sent after all",
        "{path}: {rows} record yang skemanya kini dikenal dikirim juga",
    ),
    "store.adopted": info(
        "{path} begins anew as store {uuid}: the gateway was restored from a backup",
        "{path} dimulai lagi sebagai simpanan {uuid}: gateway dipulihkan dari cadangan",
    ),
    "store.recovered": info("{path} can be written again", "{path} dapat ditulis lagi"),
    "store.busy": warning(
        "{path}: {rows} rows wait for the disk, at most {limit}",
        "check the card or disk: it is too slow or failing; nodes keep their records meanwhile",
        "{path}: {rows} baris menunggu disk, paling banyak {limit}",
        "periksa kartu atau disk: terlalu lambat atau rusak; node menyimpan record untuk sementara",
    ),
    "store.closed": error(
        "{path} is already closed",
        "start the gateway again",
        "{path} sudah ditutup",
        "jalankan lagi gateway",
    ),
    "store.salvage": info(
        "{path}: {rows} records of the earlier file are here so far",
        "{path}: sejauh ini {rows} record dari berkas lama sudah diambil",
    ),
    "store.salvaged": info(
        "{path}: {rows} records were taken over from {moved}",
        "{path}: {rows} record diambil alih dari {moved}",
    ),
    "store.salvage_lost": warning(
        "{path}: of {moved}, {lost} records are lost and of {unknown} nobody knows",
        "replace the card; the losses stand in the ledger, and the old file stays for rescue",
        "{path}: dari {moved}, {lost} record hilang dan {unknown} tidak diketahui nasibnya",
        "ganti kartu; kehilangan tercatat di buku besar, dan berkas lama disimpan untuk penyelamatan",
    ),
    "store.tail_lost": error(
        "{path} has lost its newest records: rows {first} to {last} are gone, {rows} of them undelivered",
        "check the card; if an old copy was put back, that is why. The losses stand in the ledger",
        "{path} kehilangan record terbarunya: baris {first} sampai {last} hilang, {rows} belum terkirim",
        "periksa kartu; bila salinan lama dikembalikan, itulah sebabnya. Kehilangan tercatat di buku besar",
    ),
    "store.replaced": warning(
        "{path} is not the store that was here: {found} instead of {uuid}, which had come to row {last}",
        "nothing, if it was replaced on purpose; otherwise look for the old file",
        "{path} bukan simpanan yang tadinya di sini: {found}, bukan {uuid} yang sudah sampai baris {last}",
        "tidak perlu apa-apa bila memang sengaja diganti; jika tidak, cari berkas lamanya",
    ),
    "store.log_damaged": warning(
        "the log of {path} is damaged: {commits} commits lie behind the damage; it was copied to {moved}",
        "check the card; what is whole in it was taken over, store.salvage_lost names what was not",
        "log {path} rusak sebelum ujungnya: {commits} commit di belakang kerusakan; disalin ke {moved}",
        "periksa kartu; yang utuh sudah diambil, store.salvage_lost menyebut yang tidak",
    ),
    "store.log_strange": warning(
        "the log beside {path} belongs to another file, or to another state of this one; moved to {moved}",
        "never move a store without its log; if it was copied by hand, look at both copies",
        "log di samping {path} milik berkas lain, atau keadaan lain berkas ini; dipindahkan ke {moved}",
        "jangan pindahkan simpanan tanpa log-nya; bila disalin manual, periksa kedua salinan",
    ),
    "store.ballast": warning(
        "the disk of {path} is full: {mb} MiB that were kept back are released",
        "free space on that disk; they are kept back again when there is room",
        "disk untuk {path} penuh: cadangan {mb} MiB dilepas",
        "kosongkan ruang di disk itu; cadangan dibuat lagi begitu ada ruang",
    ),
    "store.quota_cut": warning(
        "{path}: the disk has room for {now_mb} MiB, not for [store] max_mb = {max_mb} ({free_mb} MiB free)",
        "free space on that disk, or lower max_mb; meanwhile the store keeps to what is there",
        "{path}: disk hanya cukup untuk {now_mb} MiB, bukan [store] max_mb = {max_mb}; {free_mb} MiB kosong",
        "kosongkan ruang di disk itu, atau kecilkan max_mb; untuk sementara simpanan memakai yang ada",
    ),
    "store.quota_whole": info(
        "{path}: the disk has room for [store] max_mb = {max_mb} again",
        "{path}: disk cukup lagi untuk [store] max_mb = {max_mb}",
    ),
}
