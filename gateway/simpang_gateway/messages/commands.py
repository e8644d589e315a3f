"""Messages about commands from the city."""

from .message import error, info, warning

COMMAND = {
    "command.accepted": info(
        "command {id} ({command}, node {node}) of key {key} was accepted",
        "perintah {id} ({command}, node {node}) dari kunci {key} diterima",
    ),
    "command.ended": info(
        "command {id} ({command}, node {node}) of key {key} has ended: {state}",
        "perintah {id} ({command}, node {node}) dari kunci {key} berakhir: {state}",
    ),
    "command.malformed": warning(
        "a command is not in the format: {error}",
        "make it as docs/downlink.md says, or with `simpang command sign`",
        "format perintah tidak sesuai: {error}",
        "buat sesuai docs/downlink.md, atau dengan `simpang command sign`",
    ),
    "command.too_large": warning(
        "a command has {size} bytes, more than {limit}",
        "send less in one command",
        "perintah berukuran {size} byte, lebih dari {limit}",
        "kirim lebih sedikit dalam satu perintah",
    ),
    "command.unknown_key": warning(
        "a command is signed with the key {key}, which this gateway does not know",
        "add it as [[command_key]] if it is yours; else find out who may publish on the command topic",
        "perintah ditandatangani dengan kunci {key}, yang tidak dikenal gateway ini",
        "tambahkan sebagai [[command_key]] bila milik Anda; jika bukan, cari siapa yang menulis di topik itu",
    ),
    "command.signature": warning(
        "the signature of a command does not fit the key {key}",
        "compare public in [[command_key]] with the sender's key; if it is right, somebody tries to forge",
        "tanda tangan perintah tidak cocok dengan kunci {key}",
        "bandingkan public di [[command_key]] dengan kunci pengirim; bila benar, ada yang mencoba memalsukan",
    ),
    "command.flood": warning(
        "more commands came than the gateway checks",
        "find out who publishes on the command topic, and allow it at the broker to your own programs only",
        "perintah yang datang lebih banyak daripada yang diperiksa gateway",
        "cari siapa yang menulis di topik perintah, dan izinkan di broker hanya untuk program Anda",
    ),
    "command.wrong_gateway": warning(
        "command {id} is for {site}/{gateway}, not for this gateway",
        "send it to the topic of that gateway, or sign one for this gateway",
        "perintah {id} ditujukan ke {site}/{gateway}, bukan ke gateway ini",
        "kirim ke topik gateway itu, atau tandatangani untuk gateway ini",
    ),
    "command.clock": warning(
        "command {id} cannot be judged: the gateway's clock is not known",
        "wait until the gateway's clock is synchronised, and send it again",
        "perintah {id} tidak dapat dinilai: jam gateway belum diketahui",
        "tunggu sampai jam gateway tersinkron, lalu kirim lagi",
    ),
    "command.expired": warning(
        "command {id} has expired before it was begun",
        "sign a new one that is valid for longer; compare the clocks if it was fresh",
        "perintah {id} kedaluwarsa sebelum dimulai",
        "tandatangani yang baru dengan masa berlaku lebih lama; bandingkan jam bila perintah itu baru",
    ),
    "command.unanswered": warning(
        "command {id} was sent, but expired before its answer came: it may have been carried out",
        "look at what the node reports next before you give it again",
        "perintah {id} sudah dikirim, tetapi kedaluwarsa sebelum dijawab: mungkin telah dijalankan",
        "lihat laporan node berikutnya sebelum memberi perintah itu lagi",
    ),
    "command.early": warning(
        "command {id} was issued {seconds} s in the future",
        "set the sender's clock, and sign a new one",
        "perintah {id} diterbitkan {seconds} s di masa depan",
        "betulkan jam pengirim, lalu tandatangani yang baru",
    ),
    "command.span": warning(
        "command {id} does not expire within {limit} s of being issued",
        "sign one that expires sooner, or raise [commands] max_span_s",
        "perintah {id} tidak kedaluwarsa dalam {limit} s sejak diterbitkan",
        "tandatangani dengan masa berlaku lebih pendek, atau naikkan [commands] max_span_s",
    ),
    "command.before": warning(
        "command {id} was issued before this gateway began to remember commands",
        "sign a new one: nobody knows whether this one was carried out",
        "perintah {id} diterbitkan sebelum gateway ini mulai mencatat perintah",
        "tandatangani yang baru: tidak diketahui apakah yang ini sudah dijalankan",
    ),
    "command.rate": warning(
        "command {id}: the key {key} gives more than {limit} commands a minute",
        "send it again later, or raise [commands] per_minute",
        "perintah {id}: kunci {key} memberi lebih dari {limit} perintah per menit",
        "kirim lagi nanti, atau naikkan [commands] per_minute",
    ),
    "command.full": warning(
        "command {id}: no more room in the queue of {target}",
        "wait until earlier commands end or expire, and send it again",
        "perintah {id}: antrean {target} penuh",
        "tunggu sampai perintah sebelumnya berakhir atau kedaluwarsa, lalu kirim lagi",
    ),
    "command.not_allowed": warning(
        "command {id}: the key {key} may not give {command}; {where} does not have it",
        "use another key, or add it there",
        "perintah {id}: kunci {key} tidak boleh memberi {command}; tidak ada di {where}",
        "pakai kunci lain, atau tambahkan di sana",
    ),
    "command.unknown": warning(
        "command {id} asks for {command}, which this gateway does not know",
        "use one of: {known}",
        "perintah {id} meminta {command}, yang tidak dikenal gateway ini",
        "pakai salah satu: {known}",
    ),
    "command.data": warning(
        "command {id}: {command} cannot take this: {error}",
        "correct node and data, and sign a new one",
        "perintah {id}: {command} tidak menerima ini: {error}",
        "betulkan node dan data, lalu tandatangani yang baru",
    ),
    "command.id_used": warning(
        "the id {id} was used for another command",
        "give every command an id of its own",
        "id {id} sudah dipakai untuk perintah lain",
        "beri setiap perintah id tersendiri",
    ),
    "command.unsaved": error(
        "{path} cannot be written, so no command is taken: {error}",
        "make room on the card or repair it; commands are taken again by themselves",
        "{path} tidak dapat ditulis, sehingga perintah tidak diterima: {error}",
        "kosongkan ruang di kartu atau perbaiki; perintah akan diterima lagi dengan sendirinya",
    ),
    "command.memory_lost": warning(
        "{path} is damaged and was set aside; commands that were issued before now are refused: {error}",
        "give what was pending again; look at the card if this happens twice",
        "{path} rusak dan disisihkan; perintah yang terbit sebelum sekarang ditolak: {error}",
        "beri lagi perintah yang tertunda; periksa kartu bila terulang",
    ),
    "command.interrupted": warning(
        "command {id} was begun when the gateway stopped: nobody knows whether it was done",
        "look at its effect before you give it again",
        "perintah {id} sedang berjalan saat gateway berhenti: tidak diketahui apakah selesai",
        "lihat akibatnya sebelum memberi perintah itu lagi",
    ),
    "command.broker": error(
        "the broker {host} does not take it: {error}",
        "check --host, --port, login and TLS, and what the broker allows on the command topic",
        "broker {host} tidak menerimanya: {error}",
        "periksa --host, --port, login dan TLS, serta izin broker pada topik perintah",
    ),
    "command.no_state": error(
        "nothing was heard of command {id} within {seconds} s",
        "see that the gateway is connected to this broker, and knows the key; it says nothing to strangers",
        "tidak ada kabar tentang perintah {id} dalam {seconds} s",
        "pastikan gateway tersambung ke broker ini dan mengenal kuncinya; ia tidak menjawab orang asing",
    ),
    "command.replaced": info(
        "a newer command through the control socket took the place of {id}",
        "perintah baru lewat socket kendali menggantikan {id}",
    ),
}
