"""Messages about the configuration file."""

from .message import error

CONFIG = {
    "config.unreadable": error(
        "the configuration {file} cannot be read: {error}",
        "check the path and the permissions, or make one with `simpang gateway init`",
        "konfigurasi {file} tidak dapat dibaca: {error}",
        "periksa lokasi dan hak aksesnya, atau buat baru dengan `simpang gateway init`",
    ),
    "config.syntax": error(
        "{file} is not valid TOML: {error}",
        "correct that place in the file",
        "{file} bukan TOML yang sah: {error}",
        "perbaiki bagian itu di dalam berkas",
    ),
    "config.unknown_key": error(
        "{file}: {key} is not a known setting",
        "correct or remove it; did you mean {near}?",
        "{file}: {key} bukan pengaturan yang dikenal",
        "perbaiki atau hapus; mungkin maksud Anda {near}?",
    ),
    "config.missing": error(
        "{file}: {key} is missing",
        "add it: {expected}",
        "{file}: {key} belum ada",
        "tambahkan: {expected}",
    ),
    "config.value": error(
        "{file}: {key} is {found}",
        "give it this kind of value: {expected}",
        "{file}: {key} berisi {found}",
        "isi dengan nilai seperti ini: {expected}",
    ),
    "config.duplicate": error(
        "{file}: {key} is used twice: {found}",
        "give each one a value of its own",
        "{file}: {key} dipakai dua kali: {found}",
        "beri nilai yang berbeda untuk masing-masing",
    ),
    "config.kind": error(
        "{file}: {key} has no meaning for a port of kind {kind}",
        "remove it, or write kind = {needs}",
        "{file}: {key} tidak berarti untuk port jenis {kind}",
        "hapus, atau tulis kind = {needs}",
    ),
    "config.exists": error(
        "{path} is already there and is never overwritten",
        "choose an empty folder, or go on with what is there: `simpang gateway check`",
        "{path} sudah ada dan tidak pernah ditimpa",
        "pilih folder kosong, atau lanjutkan dengan yang ada: `simpang gateway check`",
    ),
    "config.unwritable": error(
        "{path} cannot be written: {error}",
        "check the folder's permissions and free space",
        "{path} tidak dapat ditulis: {error}",
        "periksa hak akses folder dan ruang kosongnya",
    ),
}
