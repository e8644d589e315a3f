"""Messages about the clock and the control socket."""

from .message import error, info, warning

CLOCK = {
    "clock.unsynced": warning(
        "the gateway's clock is not synchronised, so times are kept as unknown",
        "start chrony or systemd-timesyncd, or add a clock module; readings are taken meanwhile",
        "jam gateway belum tersinkron, sehingga waktu dicatat sebagai tidak diketahui",
        "jalankan chrony atau systemd-timesyncd, atau pasang modul jam; pembacaan tetap berjalan",
    ),
    "clock.unreadable": warning(
        "neither the kernel nor systemd-timedated tells whether the clock is synchronised: {error}",
        'install dbus, or allow the system call clock_adjtime, or set [clock] trust to "always"',
        "kernel maupun systemd-timedated tidak memberi tahu apakah jam tersinkron: {error}",
        'pasang dbus, atau izinkan panggilan sistem clock_adjtime, atau isi [clock] trust "always"',
    ),
    "clock.synced": info("the gateway's clock is synchronised", "jam gateway sudah tersinkron"),
    "clock.corrects": info(
        "the times of {rows} records became known, and uplink {uplink} sends them once more with these",
        "waktu {rows} record kini diketahui, dan uplink {uplink} mengirimnya sekali lagi beserta waktunya",
    ),
}

CONTROL = {
    "control.none": error(
        "no gateway is running at {path}",
        "start it with `simpang gateway run`",
        "tidak ada gateway yang berjalan di {path}",
        "jalankan dengan `simpang gateway run`",
    ),
    "control.busy": error(
        "another gateway answers at {path}",
        "stop it first, or set [control] socket to another path",
        "gateway lain menjawab di {path}",
        "hentikan dulu, atau arahkan [control] socket ke lokasi lain",
    ),
    "control.permission": error(
        "no permission to speak to the gateway at {path}",
        "join the group of that socket, or use the gateway's user",
        "tidak ada izin berbicara dengan gateway di {path}",
        "masuk ke grup socket itu, atau pakai pengguna gateway",
    ),
    "control.path": error(
        "{path} cannot be the control socket: {error}",
        "set [control] socket to another path",
        "{path} tidak dapat menjadi socket kendali: {error}",
        "arahkan [control] socket ke lokasi lain",
    ),
    "control.group": error(
        "the control socket cannot be given to the group {group}: {error}",
        "make that group and add the gateway's user to it, or remove [control] group",
        "socket kendali tidak dapat diberikan ke grup {group}: {error}",
        "buat grup itu dan masukkan pengguna gateway, atau hapus [control] group",
    ),
    "control.timeout": error(
        "the gateway at {path} did not answer within {seconds} s",
        "try again; if it stays so, look at the gateway's events",
        "gateway di {path} tidak menjawab dalam {seconds} s",
        "coba lagi; bila tetap begitu, lihat event gateway",
    ),
    "control.closed": error(
        "the gateway at {path} closed the connection without a full answer",
        "look at the gateway's events, then try again",
        "gateway di {path} menutup sambungan tanpa jawaban lengkap",
        "lihat event gateway, lalu coba lagi",
    ),
    "control.version": error(
        "a control request has version {found}, the gateway knows {known}",
        "use a command and a gateway of the same release",
        "permintaan kendali berversi {found}, gateway mengenal {known}",
        "pakai perintah dan gateway dari rilis yang sama",
    ),
    "control.request": error(
        "the control request is not understood: {error}",
        "send one line of JSON such as {example}",
        "permintaan kendali tidak dipahami: {error}",
        "kirim satu baris JSON seperti {example}",
    ),
    "control.op": error(
        "the gateway has no operation {op}",
        "use one of: {known}",
        "gateway tidak punya operasi {op}",
        "pakai salah satu: {known}",
    ),
    "control.clients": error(
        "{limit} programs already speak to this gateway",
        "close one of them and try again",
        "{limit} program sudah berbicara dengan gateway ini",
        "tutup salah satunya lalu coba lagi",
    ),
    "control.remote": error(
        "the gateway answered {remote}: {cause}",
        "{step}",
        "gateway menjawab {remote}: {cause}",
        "{step}",
    ),
}
