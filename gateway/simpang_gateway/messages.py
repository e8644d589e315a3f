"""The one table of everything Simpang tells people: code -> severity, cause and next step, in two languages.

Errors, alarms, events, `simpang gateway check` and docs/errors.md all read it. A code is stable: it is never
renamed and never gets another meaning. `{name}` in a text is a named argument; both languages of one entry
use the same names. Causes are clauses without a full stop, next steps are instructions.

`python -m simpang_gateway.messages` prints docs/errors.md.
"""

import os
import string
from collections.abc import Mapping
from dataclasses import dataclass

LANGUAGES = ("en", "id")
# These stand in every event line, so no argument may be called so.
RESERVED_ARGUMENTS = frozenset({"t", "up", "src", "code", "sev"})
_ARGUMENT_LIMIT = 300


@dataclass(frozen=True, slots=True)
class Message:
    """One entry: `severity` is info, warning or error; the texts hold `{named}` arguments."""

    severity: str
    cause_en: str
    next_en: str
    cause_id: str
    next_id: str

    def arguments(self, lang: str = "en") -> frozenset[str]:
        """Return the names of the arguments that the texts of one language use."""
        text = self.cause_id + self.next_id if lang == "id" else self.cause_en + self.next_en
        return frozenset(name for _, name, _, _ in string.Formatter().parse(text) if name)

    def cause(self, lang: str, arguments: Mapping[str, object]) -> str:
        """Return the cause in `lang` on one line, with the arguments in their places."""
        return _fill(self.cause_id if lang == "id" else self.cause_en, arguments)

    def next_step(self, lang: str, arguments: Mapping[str, object]) -> str:
        """Return the next step in `lang` on one line, with the arguments in their places."""
        return _fill(self.next_id if lang == "id" else self.next_en, arguments)


def language(environ: Mapping[str, str] | None = None) -> str:
    """Return `en` or `id`: SIMPANG_LANG if it names one, else id where LANG begins with id, else en."""
    env = os.environ if environ is None else environ
    chosen = env.get("SIMPANG_LANG", "")
    if chosen in LANGUAGES:
        return chosen
    return "id" if env.get("LANG", "").startswith("id") else "en"


class _Known(dict[str, str]):
    # A message must come out even where the caller forgot an argument: a question mark is the lesser fault.
    def __missing__(self, key: str) -> str:
        return "?"


def _fill(text: str, arguments: Mapping[str, object]) -> str:
    return text.format_map(_Known((name, _plain(value)) for name, value in arguments.items()))


def _plain(value: object) -> str:
    # Arguments come from files, brokers and wires: one line, no terminal controls, bounded.
    line = " ".join(str(value).split())
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return clean if len(clean) <= _ARGUMENT_LIMIT else clean[:_ARGUMENT_LIMIT] + "..."


def _error(cause_en: str, next_en: str, cause_id: str, next_id: str) -> Message:
    return Message("error", cause_en, next_en, cause_id, next_id)


def _warning(cause_en: str, next_en: str, cause_id: str, next_id: str) -> Message:
    return Message("warning", cause_en, next_en, cause_id, next_id)


def _info(cause_en: str, cause_id: str) -> Message:
    return Message("info", cause_en, "nothing needs to be done", cause_id, "tidak perlu tindakan")


_CONFIG = {
    "config.unreadable": _error(
        "the configuration {file} cannot be read: {error}",
        "check the path and the permissions, or make one with `simpang gateway init`",
        "konfigurasi {file} tidak dapat dibaca: {error}",
        "periksa lokasi dan hak aksesnya, atau buat baru dengan `simpang gateway init`",
    ),
    "config.syntax": _error(
        "{file} is not valid TOML: {error}",
        "correct that place in the file",
        "{file} bukan TOML yang sah: {error}",
        "perbaiki bagian itu di dalam berkas",
    ),
    "config.unknown_key": _error(
        "{file}: {key} is not a known setting",
        "correct or remove it; did you mean {near}?",
        "{file}: {key} bukan pengaturan yang dikenal",
        "perbaiki atau hapus; mungkin maksud Anda {near}?",
    ),
    "config.missing": _error(
        "{file}: {key} is missing",
        "add it: {expected}",
        "{file}: {key} belum ada",
        "tambahkan: {expected}",
    ),
    "config.value": _error(
        "{file}: {key} is {found}",
        "give it this kind of value: {expected}",
        "{file}: {key} berisi {found}",
        "isi dengan nilai seperti ini: {expected}",
    ),
    "config.duplicate": _error(
        "{file}: {key} is used twice: {found}",
        "give each one a value of its own",
        "{file}: {key} dipakai dua kali: {found}",
        "beri nilai yang berbeda untuk masing-masing",
    ),
    "config.kind": _error(
        "{file}: {key} has no meaning for a port of kind {kind}",
        "remove it, or write kind = {needs}",
        "{file}: {key} tidak berarti untuk port jenis {kind}",
        "hapus, atau tulis kind = {needs}",
    ),
    "config.exists": _error(
        "{path} is already there and is never overwritten",
        "choose an empty folder, or go on with what is there: `simpang gateway check`",
        "{path} sudah ada dan tidak pernah ditimpa",
        "pilih folder kosong, atau lanjutkan dengan yang ada: `simpang gateway check`",
    ),
    "config.unwritable": _error(
        "{path} cannot be written: {error}",
        "check the folder's permissions and free space",
        "{path} tidak dapat ditulis: {error}",
        "periksa hak akses folder dan ruang kosongnya",
    ),
}

_KEY = {
    "key.missing": _error(
        "{path} is not there",
        "restore it from the backup or correct its path; a new gateway begins with `simpang gateway init`",
        "{path} tidak ada",
        "pulihkan dari cadangan atau perbaiki lokasinya; gateway baru dimulai dengan `simpang gateway init`",
    ),
    "key.unreadable": _error(
        "{path} cannot be read: {error}",
        "run the command as the user who owns the file",
        "{path} tidak dapat dibaca: {error}",
        "jalankan perintah sebagai pengguna pemilik berkas itu",
    ),
    "key.mode": _error(
        "{path} has mode {mode}, so others can read a secret",
        "run `chmod 600 {path}`, and make a new key if others may have read it",
        "{path} bermode {mode}, sehingga rahasia dapat dibaca orang lain",
        "jalankan `chmod 600 {path}`, dan buat kunci baru bila mungkin sudah dibaca orang lain",
    ),
    "key.malformed": _error(
        "{path} is not a valid key file: expected {expected}",
        "restore it from the backup, or make the key again",
        "{path} bukan berkas kunci yang sah: seharusnya {expected}",
        "pulihkan dari cadangan, atau buat lagi kuncinya",
    ),
    "key.exists": _error(
        "{path} is already there",
        "choose another file, or replace it with --force",
        "{path} sudah ada",
        "pilih berkas lain, atau ganti dengan --force",
    ),
    "key.unwritable": _error(
        "the key file {path} cannot be written: {error}",
        "give a place that you may write to",
        "berkas kunci {path} tidak dapat ditulis: {error}",
        "beri lokasi yang boleh Anda tulisi",
    ),
}

_REGISTRY = {
    "registry.missing": _error(
        "{path} is not there, so node ids could be given twice",
        "restore it from the backup; only for a new gateway make one with `simpang gateway init`",
        "{path} tidak ada, sehingga id node bisa terpakai dua kali",
        "pulihkan dari cadangan; hanya untuk gateway baru buat dengan `simpang gateway init`",
    ),
    "registry.unreadable": _error(
        "{path} cannot be read: {error}",
        "run the command as the user who owns the state folder",
        "{path} tidak dapat dibaca: {error}",
        "jalankan perintah sebagai pengguna pemilik folder data",
    ),
    "registry.damaged": _error(
        "{path} is damaged: {error}",
        "restore it from the backup",
        "{path} rusak: {error}",
        "pulihkan dari cadangan",
    ),
    "registry.version": _error(
        "{path} has format {found}, this program knows {known}",
        "use the newer program that wrote it",
        "{path} berformat {found}, program ini mengenal {known}",
        "pakai program lebih baru yang menulisnya",
    ),
    "registry.site": _error(
        "{path} belongs to site {found}, the configuration says {expected}",
        "set [gateway] site to {found}, or give the new site a state folder of its own",
        "{path} milik site {found}, konfigurasi menyebut {expected}",
        "isi [gateway] site dengan {found}, atau beri site baru folder data sendiri",
    ),
    "registry.unwritable": _error(
        "{path} cannot be written: {error}",
        "check free space and the permissions of its folder",
        "{path} tidak dapat ditulis: {error}",
        "periksa ruang kosong dan hak akses foldernya",
    ),
    "registry.full": _error(
        "all node ids of {path} have been given",
        "set up a second gateway with a site name of its own",
        "semua id node di {path} sudah terpakai",
        "pasang gateway kedua dengan nama site sendiri",
    ),
    "registry.place": _error(
        "{found} cannot be a place",
        "give one line of 1 to {limit} printable characters",
        "{found} tidak dapat menjadi nama tempat",
        "beri satu baris berisi 1 sampai {limit} karakter yang dapat dicetak",
    ),
}

_STORE = {
    "store.owned": _error(
        "{path} belongs to another running process",
        "stop that program first, or use the commands that speak to a running gateway",
        "{path} sedang dipakai proses lain",
        "hentikan dulu program itu, atau pakai perintah yang berbicara dengan gateway yang berjalan",
    ),
    "store.version": _error(
        "{path} has format {found}, this program knows {known}",
        "use the newer program that wrote it",
        "{path} berformat {found}, program ini mengenal {known}",
        "pakai program lebih baru yang menulisnya",
    ),
    "store.damaged": _error(
        "{path} is damaged: {error}",
        "check the card; the running gateway sets the file aside and begins a new store",
        "{path} rusak: {error}",
        "periksa kartu; gateway yang berjalan menyisihkan berkas itu dan memulai simpanan baru",
    ),
    "store.foreign": _error(
        "{path} is not a Simpang store",
        "move that file away or set [gateway] state to another folder",
        "{path} bukan simpanan Simpang",
        "pindahkan berkas itu atau arahkan [gateway] state ke folder lain",
    ),
    "store.full": _error(
        "{path} has no room left: {error}",
        "free space on that disk, or lower [store] max_mb",
        "{path} tidak punya ruang lagi: {error}",
        "kosongkan ruang di disk itu, atau kecilkan [store] max_mb",
    ),
    "store.readonly": _error(
        "{path} cannot be written to",
        "check the card and the mount; a worn card turns itself read-only",
        "{path} tidak dapat ditulisi",
        "periksa kartu dan mount; kartu yang aus menjadi hanya-baca",
    ),
    "store.io": _error(
        "{path} failed to read or write: {error}",
        "check the card or disk and its supply",
        "{path} gagal dibaca atau ditulis: {error}",
        "periksa kartu atau disk dan catu dayanya",
    ),
    "store.created": _info("{path} was made: store {uuid}", "{path} dibuat: simpanan {uuid}"),
    "store.migrated": _info(
        "{path} was brought from format {found} to {known}",
        "{path} diubah dari format {found} ke {known}",
    ),
    "store.quarantined": _error(
        "{path} was damaged ({error}); it was moved to {moved} and store {uuid} begun",
        "keep the old file for rescue and check the card; nodes, keys and counters are not touched",
        "{path} rusak ({error}); dipindahkan ke {moved} dan simpanan {uuid} dimulai",
        "jaga berkas lama untuk penyelamatan dan periksa kartu; node, kunci, dan hitungan tetap utuh",
    ),
    "store.dropped": _warning(
        "{path}: {rows} records that no uplink had delivered were dropped to keep within the quota",
        "bring the uplink back, or raise [store] max_mb; the losses stand in the ledger",
        "{path}: {rows} record yang belum terkirim dibuang agar tetap dalam kuota",
        "pulihkan uplink, atau naikkan [store] max_mb; kehilangan tercatat di buku besar",
    ),
    "store.row_damaged": _warning(
        "{path}: row {row} is damaged and was set aside",
        "check the card or disk; the record is declared lost",
        "{path}: baris {row} rusak dan disisihkan",
        "periksa kartu atau disk; record itu dinyatakan hilang",
    ),
    "store.window_damaged": _warning(
        "what {path} knew of node {node} in epoch {epoch} is damaged and was left out",
        "nothing at once: the node sends again what it has; if it happens again, replace the card",
        "catatan {path} tentang node {node} di epoch {epoch} rusak dan dilewati",
        "belum perlu apa-apa: node mengirim ulang yang ada padanya; jika terulang, ganti kartu",
    ),
    "store.cursor_damaged": _warning(
        "the place of uplink {uplink} in {path} is damaged; it begins again at the oldest record",
        "nothing at once: consumers remove repeated identities; if it happens again, replace the card",
        "posisi uplink {uplink} di {path} rusak; pengiriman diulang dari rekaman tertua",
        "belum perlu apa-apa: penerima membuang yang ganda menurut identitas; jika terulang, ganti kartu",
    ),
    "store.node_share": _warning(
        "{path}: node {node} held more than its share of the full store: {rows} of its records were dropped",
        "look why it sends so much; if it is as it should be, raise [limits] node_disk_percent or max_mb",
        "{path}: node {node} memakai lebih dari jatahnya di simpanan yang penuh: {rows} record-nya dibuang",
        "periksa mengapa kirimannya begitu banyak; bila wajar, naikkan node_disk_percent atau max_mb",
    ),
    "store.released": _info(
        "{path}: {rows} records whose schema is known now are sent after all",
        "{path}: {rows} record yang skemanya kini dikenal dikirim juga",
    ),
    "store.recovered": _info("{path} can be written again", "{path} dapat ditulis lagi"),
    "store.busy": _warning(
        "{path}: {rows} rows wait for the disk, at most {limit}",
        "check the card or disk: it is too slow or failing; nodes keep their records meanwhile",
        "{path}: {rows} baris menunggu disk, paling banyak {limit}",
        "periksa kartu atau disk: terlalu lambat atau rusak; node menyimpan record untuk sementara",
    ),
    "store.closed": _error(
        "{path} is already closed",
        "start the gateway again",
        "{path} sudah ditutup",
        "jalankan lagi gateway",
    ),
}

_PORT = {
    "port.open": _info("port {port} is open on {url}", "port {port} terbuka di {url}"),
    "port.missing": _error(
        "port {port}: {url} is not there",
        "plug the adapter in, or correct url in [[port]]",
        "port {port}: {url} tidak ada",
        "pasang adaptornya, atau perbaiki url di [[port]]",
    ),
    "port.busy": _error(
        "port {port}: {url} is in use by another program",
        "close that program; `fuser {url}` names it",
        "port {port}: {url} sedang dipakai program lain",
        "tutup program itu; `fuser {url}` menyebutkannya",
    ),
    "port.permission": _error(
        "port {port}: no permission to open {url}",
        "add the user to the group dialout and log in again",
        "port {port}: tidak ada izin membuka {url}",
        "tambahkan pengguna ke grup dialout lalu masuk lagi",
    ),
    "port.lost": _error(
        "port {port}: {url} was lost: {error}",
        "check the cable and its supply; the gateway goes on trying",
        "port {port}: {url} terputus: {error}",
        "periksa kabel dan catu dayanya; gateway terus mencoba",
    ),
    "port.failed": _error(
        "port {port}: {url} cannot be opened: {error}",
        "check url and baud in [[port]]",
        "port {port}: {url} tidak dapat dibuka: {error}",
        "periksa url dan baud di [[port]]",
    ),
    "port.node_silent": _warning(
        "node {node} does not answer on port {port}",
        "check its supply, the pair A/B and its baud; the gateway goes on asking every 10 s",
        "node {node} tidak menjawab di port {port}",
        "periksa catu dayanya, pasangan A/B dan baud-nya; gateway terus bertanya tiap 10 s",
    ),
    "port.babble": _warning(
        "port {port}: the line never falls silent, so nodes can hardly be asked",
        "look for a node that keeps sending, a missing bias or swapped wires A/B",
        "port {port}: jalur tidak pernah diam, sehingga node sulit ditanya",
        "cari node yang terus mengirim, bias yang tidak ada, atau kabel A/B yang tertukar",
    ),
    "port.bridge": _info(
        "port {port}: bridge {version} is on channel {channel}, {uptime} s after its start (cause {cause})",
        "port {port}: bridge {version} di kanal {channel}, {uptime} dtk setelah mulai (sebab {cause})",
    ),
    "port.bridge_silent": _error(
        "port {port}: the bridge at {url} says nothing",
        "check its supply, the cable, and that baud in [[port]] is the bridge's; else restart or flash it",
        "port {port}: bridge di {url} tidak bersuara",
        "periksa catu daya, kabel, dan baud di [[port]]; jika tetap, nyalakan ulang atau flash lagi",
    ),
    "port.bridge_channel": _error(
        "port {port}: the bridge stays on channel {channel}, not {wanted}",
        "set channel in [[port]] to one that its country allows, 1 to 11 everywhere",
        "port {port}: bridge tetap di kanal {channel}, bukan {wanted}",
        "isi channel di [[port]] dengan kanal yang diizinkan, 1 sampai 11 selalu boleh",
    ),
}

_UPLINK = {
    "uplink.up": _info("uplink {uplink} is connected to {host}", "uplink {uplink} tersambung ke {host}"),
    "uplink.dns": _error(
        "uplink {uplink}: the name {host} cannot be resolved: {error}",
        "check host in [[uplink]] and the DNS server",
        "uplink {uplink}: nama {host} tidak ditemukan: {error}",
        "periksa host di [[uplink]] dan server DNS",
    ),
    "uplink.down": _error(
        "uplink {uplink}: no connection to {host}: {error}",
        "check the network and the broker; records are kept and the gateway goes on trying",
        "uplink {uplink}: tidak tersambung ke {host}: {error}",
        "periksa jaringan dan broker; record disimpan dan gateway terus mencoba",
    ),
    "uplink.refused_login": _error(
        "uplink {uplink}: {host} refused the login: {reason}",
        "check username and password_file in [[uplink]] and the broker's rules",
        "uplink {uplink}: {host} menolak login: {reason}",
        "periksa username dan password_file di [[uplink]] serta aturan broker",
    ),
    "uplink.version": _error(
        "uplink {uplink}: {host} does not speak MQTT 5: {reason}",
        "use a broker with MQTT 5, for example mosquitto 2",
        "uplink {uplink}: {host} tidak mendukung MQTT 5: {reason}",
        "pakai broker dengan MQTT 5, misalnya mosquitto 2",
    ),
    "uplink.refused_message": _error(
        "uplink {uplink}: the broker refused a message on {topic}: {reason}",
        "allow this topic for the gateway's login at the broker; records are kept until then",
        "uplink {uplink}: broker menolak pesan di {topic}: {reason}",
        "izinkan topik itu bagi login gateway di broker; record disimpan sampai saat itu",
    ),
    "uplink.aside": _warning(
        "uplink {uplink}: row {row} of node {node} cannot be sent and was set aside: {reason}",
        "bring gateway and firmware to the same release; the row stays in the store",
        "uplink {uplink}: baris {row} dari node {node} tidak dapat dikirim dan disisihkan: {reason}",
        "samakan rilis gateway dan firmware; baris itu tetap di simpanan",
    ),
    "uplink.timeout": _error(
        "uplink {uplink}: {host} did not answer within {seconds} s",
        "check the network; a broker behind a slow link needs a higher publish_timeout_s",
        "uplink {uplink}: {host} tidak menjawab dalam {seconds} s",
        "periksa jaringan; broker di jaringan lambat perlu publish_timeout_s lebih besar",
    ),
}

_CLOCK = {
    "clock.unsynced": _warning(
        "the gateway's clock is not synchronised, so times are kept as unknown",
        "start chrony or systemd-timesyncd, or add a clock module; readings are taken meanwhile",
        "jam gateway belum tersinkron, sehingga waktu dicatat sebagai tidak diketahui",
        "jalankan chrony atau systemd-timesyncd, atau pasang modul jam; pembacaan tetap berjalan",
    ),
    "clock.unreadable": _warning(
        "the kernel does not tell whether the clock is synchronised: {error}",
        'allow the system call adjtimex (systemd: no ProtectClock), or set [clock] trust to "always"',
        "kernel tidak memberi tahu apakah jam tersinkron: {error}",
        'izinkan panggilan sistem adjtimex (systemd: tanpa ProtectClock), atau isi [clock] trust "always"',
    ),
    "clock.synced": _info("the gateway's clock is synchronised", "jam gateway sudah tersinkron"),
}

_CONTROL = {
    "control.none": _error(
        "no gateway is running at {path}",
        "start it with `simpang gateway run`",
        "tidak ada gateway yang berjalan di {path}",
        "jalankan dengan `simpang gateway run`",
    ),
    "control.busy": _error(
        "another gateway answers at {path}",
        "stop it first, or set [control] socket to another path",
        "gateway lain menjawab di {path}",
        "hentikan dulu, atau arahkan [control] socket ke lokasi lain",
    ),
    "control.permission": _error(
        "no permission to speak to the gateway at {path}",
        "join the group of that socket, or use the gateway's user",
        "tidak ada izin berbicara dengan gateway di {path}",
        "masuk ke grup socket itu, atau pakai pengguna gateway",
    ),
    "control.path": _error(
        "{path} cannot be the control socket: {error}",
        "set [control] socket to another path",
        "{path} tidak dapat menjadi socket kendali: {error}",
        "arahkan [control] socket ke lokasi lain",
    ),
    "control.group": _error(
        "the control socket cannot be given to the group {group}: {error}",
        "make that group and add the gateway's user to it, or remove [control] group",
        "socket kendali tidak dapat diberikan ke grup {group}: {error}",
        "buat grup itu dan masukkan pengguna gateway, atau hapus [control] group",
    ),
    "control.timeout": _error(
        "the gateway at {path} did not answer within {seconds} s",
        "try again; if it stays so, look at the gateway's events",
        "gateway di {path} tidak menjawab dalam {seconds} s",
        "coba lagi; bila tetap begitu, lihat event gateway",
    ),
    "control.closed": _error(
        "the gateway at {path} closed the connection without a full answer",
        "look at the gateway's events, then try again",
        "gateway di {path} menutup sambungan tanpa jawaban lengkap",
        "lihat event gateway, lalu coba lagi",
    ),
    "control.version": _error(
        "a control request has version {found}, the gateway knows {known}",
        "use a command and a gateway of the same release",
        "permintaan kendali berversi {found}, gateway mengenal {known}",
        "pakai perintah dan gateway dari rilis yang sama",
    ),
    "control.request": _error(
        "the control request is not understood: {error}",
        "send one line of JSON such as {example}",
        "permintaan kendali tidak dipahami: {error}",
        "kirim satu baris JSON seperti {example}",
    ),
    "control.op": _error(
        "the gateway has no operation {op}",
        "use one of: {known}",
        "gateway tidak punya operasi {op}",
        "pakai salah satu: {known}",
    ),
    "control.clients": _error(
        "{limit} programs already speak to this gateway",
        "close one of them and try again",
        "{limit} program sudah berbicara dengan gateway ini",
        "tutup salah satunya lalu coba lagi",
    ),
    "control.remote": _error(
        "the gateway answered {remote}: {cause}",
        "{step}",
        "gateway menjawab {remote}: {cause}",
        "{step}",
    ),
}

_NODE = {
    "node.added": _info("node {node} was added at {place}", "node {node} ditambahkan di {place}"),
    "node.unknown": _error(
        "node {node} is not in the registry",
        "list the nodes with `simpang node list`, or add it with `simpang node add`",
        "node {node} tidak ada di registri",
        "lihat daftar dengan `simpang node list`, atau tambahkan dengan `simpang node add`",
    ),
    "node.revoked": _error(
        "node {node} is revoked",
        "give the board a new id with `simpang node add`; a revoked id is never used again",
        "node {node} telah dicabut",
        "beri papan itu id baru dengan `simpang node add`; id yang dicabut tidak dipakai lagi",
    ),
    "node.was_revoked": _info(
        "node {node} was revoked and is refused from now on: {why}",
        "node {node} dicabut dan kini ditolak: {why}",
    ),
    "node.rekeyed": _info(
        "node {node} was given new keys, generation {generation}; they count from its next flashing on",
        "node {node} mendapat kunci baru, generasi {generation}; berlaku sejak flashing berikutnya",
    ),
    "node.promoted": _info(
        "node {node} speaks with its new keys, generation {generation}; the old ones are refused from now on",
        "node {node} memakai kunci barunya, generasi {generation}; kunci lama kini ditolak",
    ),
    "node.command": _error(
        "node {node} cannot be given this command: {error}",
        "see `simpang node command --help`",
        "perintah ini tidak dapat diberikan ke node {node}: {error}",
        "lihat `simpang node command --help`",
    ),
    "node.floor_jump": _warning(
        "port {port}, node {node} gave up more than 4096 records at once ({count} times)",
        "after a long outage that is as it should be; else look at that board and its key",
        "port {port}, node {node} melepas lebih dari 4096 record sekaligus ({count} kali)",
        "setelah gangguan panjang itu wajar; jika tidak, periksa papan itu dan kuncinya",
    ),
    "node.epochs_used_up": _error(
        "node {node} has used up its epochs",
        "give the board a new id with `simpang node add`",
        "epoch node {node} sudah habis",
        "beri papan itu id baru dengan `simpang node add`",
    ),
    "node.commands_used_up": _error(
        "node {node} has used up its command ids",
        "give the board a new id with `simpang node add`",
        "id perintah node {node} sudah habis",
        "beri papan itu id baru dengan `simpang node add`",
    ),
}

_WIRING_EN = "check wiring, earth and the baud rate"
_WIRING_ID = "periksa kabel, pentanahan, dan baud rate"
_WARY_EN = "if it goes on, compare the node's key file and look for a stranger on the line"
_WARY_ID = "bila berlanjut, cocokkan berkas kunci node dan cari perangkat asing di jalur itu"
_UPDATE_EN = "compare the versions of firmware and gateway"
_UPDATE_ID = "bandingkan versi firmware dan gateway"


def _frame(cause_en: str, next_en: str, cause_id: str, next_id: str) -> Message:
    start = "port {port}, node {node}: frames dropped ({count}): "
    start_id = "port {port}, node {node}: frame dibuang ({count}): "
    return _warning(start + cause_en, next_en, start_id + cause_id, next_id)


# "frame." and the cause of simpang_protocol.errors.FrameError, or a cause that the gateway counts itself.
_FRAME = {
    "frame.bad_crc": _frame("the CRC is wrong", _WIRING_EN, "CRC salah", _WIRING_ID),
    "frame.bad_cobs": _frame("not COBS", _WIRING_EN, "bukan COBS", _WIRING_ID),
    "frame.overrun": _frame("too long", _WIRING_EN, "terlalu panjang", _WIRING_ID),
    "frame.short": _frame("shorter than a header", _UPDATE_EN, "lebih pendek dari header", _UPDATE_ID),
    "frame.version": _frame("unknown protocol version", _UPDATE_EN, "versi protokol tak dikenal", _UPDATE_ID),
    "frame.reserved": _frame("a reserved bit is set", _UPDATE_EN, "bit cadangan terisi", _UPDATE_ID),
    "frame.type": _frame("unknown frame type", _UPDATE_EN, "jenis frame tak dikenal", _UPDATE_ID),
    "frame.node": _frame("a reserved node id", _UPDATE_EN, "id node terlarang", _UPDATE_ID),
    "frame.extension": _frame("unknown critical extension", _UPDATE_EN, "ekstensi tak dikenal", _UPDATE_ID),
    "frame.direction": _frame("sent in the wrong direction", _WIRING_EN, "arahnya terbalik", _WIRING_ID),
    "frame.mic_length": _frame("wrong MIC length for this link", _WARY_EN, "panjang MIC salah", _WARY_ID),
    "frame.bad_mic": _frame("wrong key or forged", _WARY_EN, "kunci salah atau palsu", _WARY_ID),
    "frame.replay": _frame("seen before", _WARY_EN, "sudah pernah diterima", _WARY_ID),
    "frame.old_epoch": _frame(
        "an older epoch than known", _WARY_EN, "epoch lebih lama dari yang dikenal", _WARY_ID
    ),
    "frame.epoch": _frame("epoch 0", _UPDATE_EN, "epoch 0", _UPDATE_ID),
    "frame.generation": _frame("another generation of keys", _WARY_EN, "generasi kunci lain", _WARY_ID),
    "frame.epochs_used_up": _frame(
        "the node has used up its epochs",
        "give the board a new id with `simpang node add`",
        "epoch node itu sudah habis",
        "beri papan itu id baru dengan `simpang node add`",
    ),
    "frame.epoch_rate": _frame("epochs rise too fast", _WARY_EN, "epoch naik terlalu cepat", _WARY_ID),
    "frame.quota": _frame(
        "more than a node may send",
        "look why it sends so much: a stolen key? If it is as it should be, raise [limits]",
        "melebihi jatah satu node",
        "periksa mengapa kirimannya begitu banyak: kunci dicuri? Bila wajar, naikkan [limits]",
    ),
    "frame.command": _frame("a damaged command", _UPDATE_EN, "perintah rusak", _UPDATE_ID),
    "frame.update": _frame(
        "a damaged piece of an update", _UPDATE_EN, "potongan pembaruan rusak", _UPDATE_ID
    ),
    "frame.update_status": _frame(
        "a damaged status of an update", _UPDATE_EN, "status pembaruan rusak", _UPDATE_ID
    ),
    "frame.unknown_node": _frame(
        "the node is not in the registry",
        "add it with `simpang node add`, or look for a stranger on the line",
        "node tidak ada di registri",
        "tambahkan dengan `simpang node add`, atau cari perangkat asing di jalur itu",
    ),
    "frame.revoked_node": _frame(
        "the node is revoked",
        "find that board and give it a new id with `simpang node add`",
        "node telah dicabut",
        "temukan papan itu dan beri id baru dengan `simpang node add`",
    ),
    "frame.hello_size": _frame("HELLO of a wrong size", _UPDATE_EN, "ukuran HELLO salah", _UPDATE_ID),
    "frame.hello_header": _frame("HELLO with a wrong header", _UPDATE_EN, "header HELLO salah", _UPDATE_ID),
    "frame.hello_mac": _frame("HELLO, wrong key or stale", _WARY_EN, "HELLO salah atau basi", _WARY_ID),
    "frame.hello_reason": _frame("contradictory HELLO", _UPDATE_EN, "isi HELLO janggal", _UPDATE_ID),
    "frame.hello_rate": _frame("too many HELLOs", _WARY_EN, "HELLO terlalu sering", _WARY_ID),
    "frame.burst_head": _frame("a damaged burst head", _UPDATE_EN, "kepala burst rusak", _UPDATE_ID),
    "frame.ack": _frame("a damaged acknowledgement", _UPDATE_EN, "ACK rusak", _UPDATE_ID),
    "frame.range": _frame("a value out of range", _UPDATE_EN, "nilai di luar batas", _UPDATE_ID),
    "frame.time": _frame("a damaged time", _UPDATE_EN, "waktu rusak", _UPDATE_ID),
}

_RECORD = {
    "record.damaged": _warning(
        "a record of node {node} cannot be decoded: {error}",
        "compare the versions of firmware and gateway",
        "record dari node {node} tidak dapat diurai: {error}",
        "bandingkan versi firmware dan gateway",
    ),
}

_GATEWAY = {
    "gateway.started": _info(
        "gateway {gateway} of site {site} has started: version {version}, store {store}",
        "gateway {gateway} di site {site} mulai berjalan: versi {version}, simpanan {store}",
    ),
    "gateway.stopped": _info("gateway {gateway} has stopped", "gateway {gateway} berhenti"),
    "gateway.fault": _error(
        "a part of the gateway failed and the whole will start again: {error}",
        "report this line together with the version",
        "satu bagian gateway gagal dan semuanya akan dimulai ulang: {error}",
        "laporkan baris ini beserta versinya",
    ),
    "alarm.raised": _warning(
        "the alarm {alarm} {key} is on",
        "look at that alarm: `simpang gateway status`",
        "alarm {alarm} {key} menyala",
        "lihat alarm itu: `simpang gateway status`",
    ),
    "alarm.cleared": _info("the alarm {alarm} {key} is over", "alarm {alarm} {key} sudah berakhir"),
    "events.dropped": _warning(
        "{count} events were dropped because the log could not be written fast enough",
        "check the disk of [log] path, or who reads the gateway's output",
        "{count} event dibuang karena log tidak tertulis cukup cepat",
        "periksa disk [log] path, atau siapa yang membaca keluaran gateway",
    ),
    "log.failed": _error(
        "the log {path} cannot be written: {error}",
        "check [log] path, its folder's permissions and free space",
        "log {path} tidak dapat ditulis: {error}",
        "periksa [log] path, hak akses foldernya, dan ruang kosong",
    ),
    "capture.damaged": _warning(
        "line {line} of a capture cannot be read: {error}",
        "make the capture anew if it matters; the other lines are read all the same",
        "baris {line} dari rekaman tidak dapat dibaca: {error}",
        "rekam ulang bila penting; baris lain tetap dibaca",
    ),
    "capture.dropped": _warning(
        "{count} lines of the capture {path} were left out: the disk was too slow or full",
        "the capture goes on; take one port alone, or a faster disk, where every byte matters",
        "{count} baris rekaman {path} tidak tertulis: disk terlalu lambat atau penuh",
        "perekaman berlanjut; rekam satu port saja, atau pakai disk lebih cepat, bila setiap byte penting",
    ),
    "capture.failed": _error(
        "the capture {path} cannot be written: {error}",
        "check [capture] path, its folder's permissions and free space",
        "rekaman {path} tidak dapat ditulis: {error}",
        "periksa [capture] path, hak akses foldernya, dan ruang kosong",
    ),
}

_CLI = {
    "cli.usage": _error(
        "{error}",
        "see `{command} --help`",
        "{error}",
        "lihat `{command} --help`",
    ),
    "cli.io": _error(
        "reading or writing failed: {error}",
        "check that file or device and its free space",
        "gagal membaca atau menulis: {error}",
        "periksa berkas atau perangkat itu dan ruang kosongnya",
    ),
    "cli.input": _error(
        "{input} is neither a readable file nor hexadecimal",
        "give a file, an even number of hexadecimal digits, or - for standard input",
        "{input} bukan berkas yang terbaca dan bukan heksadesimal",
        "beri berkas, digit heksadesimal berjumlah genap, atau - untuk masukan standar",
    ),
}

MESSAGES: Mapping[str, Message] = {
    **_CONFIG,
    **_KEY,
    **_REGISTRY,
    **_STORE,
    **_PORT,
    **_UPLINK,
    **_CLOCK,
    **_CONTROL,
    **_NODE,
    **_FRAME,
    **_RECORD,
    **_GATEWAY,
    **_CLI,
}


def to_markdown() -> str:
    """Return docs/errors.md: every code with its severity, cause and next step, in both languages."""
    lines = [
        "# Codes",
        "",
        "Everything that Simpang reports has one of these codes: errors of commands, alarms, events and",
        "findings of `simpang gateway check`. A code never changes its meaning. `{name}` stands for an",
        "argument, which an event line carries under the same name. The language follows `SIMPANG_LANG`",
        "(`en` or `id`), else `LANG`.",
        "",
        "This page is printed by `python -m simpang_gateway.messages`; a test keeps it equal to the table.",
    ]
    group = ""
    for code, message in MESSAGES.items():
        if code.partition(".")[0] != group:
            group = code.partition(".")[0]
            lines += ["", f"## {group}"]
        lines += ["", f"### `{code}` ({message.severity})", ""]
        lines += [f"- {message.cause_en}. *Next:* {message.next_en}"]
        lines += [f"- {message.cause_id}. *Langkah berikut:* {message.next_id}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(to_markdown(), end="")
