"""Messages about the command line."""

from .message import error

CLI = {
    "cli.usage": error(
        "{error}",
        "see `{command} --help`",
        "{error}",
        "lihat `{command} --help`",
    ),
    "cli.io": error(
        "reading or writing failed: {error}",
        "check that file or device and its free space",
        "gagal membaca atau menulis: {error}",
        "periksa berkas atau perangkat itu dan ruang kosongnya",
    ),
    "cli.input": error(
        "{input} is neither a readable file nor hexadecimal",
        "give a file, an even number of hexadecimal digits, or - for standard input",
        "{input} bukan berkas yang terbaca dan bukan heksadesimal",
        "beri berkas, digit heksadesimal berjumlah genap, atau - untuk masukan standar",
    ),
}

INSTALL = {
    "install.root": error(
        "installing changes the system, and this user may not",
        "run it with sudo; `--dry-run` shows everything without",
        "pemasangan mengubah sistem, dan pengguna ini tidak berhak",
        "jalankan dengan sudo; `--dry-run` memperlihatkan semuanya tanpa itu",
    ),
    "install.no_systemd": error(
        "systemd does not run here: {error}",
        "run the gateway by `simpang gateway run`, or install into an image with --root",
        "systemd tidak berjalan di sini: {error}",
        "jalankan gateway dengan `simpang gateway run`, atau pasang ke sebuah image dengan --root",
    ),
    "install.python": error(
        "the service could not run {path}: it is in a place that is hidden from it, or not open to all users",
        "make a virtual environment in /opt/simpang, install Simpang there, run its `simpang` with sudo",
        "layanan tidak dapat menjalankan {path}: letaknya tersembunyi baginya, atau tidak terbuka bagi semua",
        "buat virtual environment /opt/simpang, pasang Simpang di sana, jalankan `simpang`-nya dengan sudo",
    ),
    "install.foreign": error(
        "{path} is there and was not made by this command",
        "look at it and move it away, or write the unit by hand from it",
        "{path} sudah ada dan tidak dibuat oleh perintah ini",
        "periksa lalu pindahkan, atau tulis unit dengan tangan berdasarkan itu",
    ),
    "install.half_state": error(
        "{path} has {found} but no {missing}",
        "restore a backup of that folder, or move away what is there; nothing was overwritten",
        "{path} punya {found} tetapi tidak punya {missing}",
        "pulihkan cadangan folder itu, atau pindahkan isinya; tidak ada yang ditimpa",
    ),
    "install.failed": error(
        "step {step} of {steps} failed: {action}: {error}",
        "mend the cause and run the same command again: it goes on; `--undo` takes back what was done",
        "langkah {step} dari {steps} gagal: {action}: {error}",
        "perbaiki sebabnya lalu ulangi perintah ini; `--undo` membatalkan yang sudah dilakukan",
    ),
    "install.site": error(
        "there is no configuration yet at {path}",
        "name the site by --site, or a configuration by --config-from",
        "belum ada konfigurasi di {path}",
        "sebutkan situs dengan --site, atau sebuah konfigurasi dengan --config-from",
    ),
    "install.config": error(
        "{path} is there and differs from {other}; it was not changed",
        "edit it, then `simpang gateway reload`; or move it away first",
        "{path} sudah ada dan berbeda dari {other}; ia tidak diubah",
        "sunting berkas itu lalu `simpang gateway reload`; atau pindahkan lebih dulu",
    ),
    "install.state": error(
        "the state folder in {path} is not absolute, so it would move with the file",
        "write [gateway] state as an absolute path, such as {example}",
        "folder state di {path} tidak absolut, sehingga akan berpindah bersama berkasnya",
        "tulis [gateway] state sebagai jalur absolut, misalnya {example}",
    ),
}
