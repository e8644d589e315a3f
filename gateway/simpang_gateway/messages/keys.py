"""Messages about key files and the registry."""

from .message import error

KEY = {
    "key.missing": error(
        "{path} is not there",
        "restore it from the backup or correct its path; a new gateway begins with `simpang gateway init`",
        "{path} tidak ada",
        "pulihkan dari cadangan atau perbaiki lokasinya; gateway baru dimulai dengan `simpang gateway init`",
    ),
    "key.unreadable": error(
        "{path} cannot be read: {error}",
        "run the command as the user who owns the file",
        "{path} tidak dapat dibaca: {error}",
        "jalankan perintah sebagai pengguna pemilik berkas itu",
    ),
    "key.mode": error(
        "{path} has mode {mode}, so others can read a secret",
        "run `chmod 600 {path}`, and make a new key if others may have read it",
        "{path} bermode {mode}, sehingga rahasia dapat dibaca orang lain",
        "jalankan `chmod 600 {path}`, dan buat kunci baru bila mungkin sudah dibaca orang lain",
    ),
    "key.malformed": error(
        "{path} is not a valid key file: expected {expected}",
        "restore it from the backup, or make the key again",
        "{path} bukan berkas kunci yang sah: seharusnya {expected}",
        "pulihkan dari cadangan, atau buat lagi kuncinya",
    ),
    "key.exists": error(
        "{path} is already there",
        "choose another file, or replace it with --force",
        "{path} sudah ada",
        "pilih berkas lain, atau ganti dengan --force",
    ),
    "key.unwritable": error(
        "the key file {path} cannot be written: {error}",
        "give a place that you may write to",
        "berkas kunci {path} tidak dapat ditulis: {error}",
        "beri lokasi yang boleh Anda tulisi",
    ),
}

REGISTRY = {
    "registry.missing": error(
        "{path} is not there, so node ids could be given twice",
        "restore it from the backup; only for a new gateway make one with `simpang gateway init`",
        "{path} tidak ada, sehingga id node bisa terpakai dua kali",
        "pulihkan dari cadangan; hanya untuk gateway baru buat dengan `simpang gateway init`",
    ),
    "registry.unreadable": error(
        "{path} cannot be read: {error}",
        "run the command as the user who owns the state folder",
        "{path} tidak dapat dibaca: {error}",
        "jalankan perintah sebagai pengguna pemilik folder data",
    ),
    "registry.damaged": error(
        "{path} is damaged: {error}",
        "restore it from the backup",
        "{path} rusak: {error}",
        "pulihkan dari cadangan",
    ),
    "registry.version": error(
        "{path} has format {found}, this program knows {known}",
        "use the newer program that wrote it",
        "{path} berformat {found}, program ini mengenal {known}",
        "pakai program lebih baru yang menulisnya",
    ),
    "registry.site": error(
        "{path} belongs to site {found}, the configuration says {expected}",
        "set [gateway] site to {found}, or give the new site a state folder of its own",
        "{path} milik site {found}, konfigurasi menyebut {expected}",
        "isi [gateway] site dengan {found}, atau beri site baru folder data sendiri",
    ),
    "registry.unwritable": error(
        "{path} cannot be written: {error}",
        "check free space and the permissions of its folder",
        "{path} tidak dapat ditulis: {error}",
        "periksa ruang kosong dan hak akses foldernya",
    ),
    "registry.full": error(
        "all node ids of {path} have been given",
        "set up a second gateway with a site name of its own",
        "semua id node di {path} sudah terpakai",
        "pasang gateway kedua dengan nama site sendiri",
    ),
    "registry.place": error(
        "{found} cannot be a place",
        "give one line of 1 to {limit} printable characters",
        "{found} tidak dapat menjadi nama tempat",
        "beri satu baris berisi 1 sampai {limit} karakter yang dapat dicetak",
    ),
}
