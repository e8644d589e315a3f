"""Messages about uplinks."""

from .message import error, info, warning

UPLINK = {
    "uplink.up": info("uplink {uplink} is connected to {host}", "uplink {uplink} tersambung ke {host}"),
    "uplink.dns": error(
        "uplink {uplink}: the name {host} cannot be resolved: {error}",
        "check host in [[uplink]] and the DNS server",
        "uplink {uplink}: nama {host} tidak ditemukan: {error}",
        "periksa host di [[uplink]] dan server DNS",
    ),
    "uplink.down": error(
        "uplink {uplink}: no connection to {host}: {error}",
        "check the network and the broker; records are kept and the gateway goes on trying",
        "uplink {uplink}: tidak tersambung ke {host}: {error}",
        "periksa jaringan dan broker; record disimpan dan gateway terus mencoba",
    ),
    "uplink.refused_login": error(
        "uplink {uplink}: {host} refused the login: {reason}",
        "check username and password_file in [[uplink]] and the broker's rules",
        "uplink {uplink}: {host} menolak login: {reason}",
        "periksa username dan password_file di [[uplink]] serta aturan broker",
    ),
    "uplink.version": error(
        "uplink {uplink}: {host} does not speak MQTT 5: {reason}",
        "use a broker with MQTT 5, for example mosquitto 2",
        "uplink {uplink}: {host} tidak mendukung MQTT 5: {reason}",
        "pakai broker dengan MQTT 5, misalnya mosquitto 2",
    ),
    "uplink.refused_message": error(
        "uplink {uplink}: the broker refused a message on {topic}: {reason}",
        "allow this topic for the gateway's login at the broker; records are kept until then",
        "uplink {uplink}: broker menolak pesan di {topic}: {reason}",
        "izinkan topik itu bagi login gateway di broker; record disimpan sampai saat itu",
    ),
    "uplink.aside": warning(
        "uplink {uplink}: row {row} of node {node} cannot be sent and was set aside: {reason}",
        "bring gateway and firmware to the same release; the row stays in the store",
        "uplink {uplink}: baris {row} dari node {node} tidak dapat dikirim dan disisihkan: {reason}",
        "samakan rilis gateway dan firmware; baris itu tetap di simpanan",
    ),
    "uplink.timeout": error(
        "uplink {uplink}: {host} did not answer within {seconds} s",
        "check the network; a broker behind a slow link needs a higher publish_timeout_s",
        "uplink {uplink}: {host} tidak menjawab dalam {seconds} s",
        "periksa jaringan; broker di jaringan lambat perlu publish_timeout_s lebih besar",
    ),
    "uplink.refused_subscription": error(
        "uplink {uplink}: the broker refused the subscription of {topic}: {reason}",
        "allow the gateway's login to read this topic at the broker",
        "uplink {uplink}: broker menolak langganan topik {topic}: {reason}",
        "izinkan login gateway membaca topik itu di broker",
    ),
    "uplink.tls": error(
        "uplink {uplink}: no secure connection to {host}: {error}",
        "check the TLS settings of the broker: it must speak TLS 1.2 or newer",
        "uplink {uplink}: tidak ada sambungan aman ke {host}: {error}",
        "periksa pengaturan TLS broker: ia harus mendukung TLS 1.2 atau lebih baru",
    ),
    "uplink.tls_ca": error(
        "uplink {uplink}: no trusted authority has signed the certificate of {host}: {error}",
        "put the certificate of the broker's authority into ca_file in [[uplink]]",
        "uplink {uplink}: sertifikat {host} tidak ditandatangani otoritas yang dipercaya di sini: {error}",
        "taruh sertifikat otoritas broker di ca_file pada [[uplink]]",
    ),
    "uplink.tls_name": error(
        "uplink {uplink}: the certificate of the broker is for another name than {host}: {error}",
        "write the name of the certificate as host or as server_name in [[uplink]]",
        "uplink {uplink}: sertifikat broker untuk nama lain, bukan {host}: {error}",
        "tulis nama di sertifikat itu sebagai host atau server_name di [[uplink]]",
    ),
    "uplink.tls_server_expired": error(
        "uplink {uplink}: the certificate of {host} has expired: {error}",
        "renew the certificate at the broker; check that the gateway's clock is right",
        "uplink {uplink}: sertifikat {host} sudah kedaluwarsa: {error}",
        "perbarui sertifikat di broker; periksa apakah jam gateway benar",
    ),
    "uplink.tls_not_yet": error(
        "uplink {uplink}: the certificate of {host} is not valid yet: {error}",
        "set the gateway's clock: see that a time server can be reached",
        "uplink {uplink}: sertifikat {host} belum berlaku: {error}",
        "setel jam gateway: pastikan server waktu dapat dijangkau",
    ),
    "uplink.tls_refused": error(
        "uplink {uplink}: {host} refused this gateway's certificate: {error}",
        "check cert_file in [[uplink]]: expired, missing, or of an authority that the broker does not know",
        "uplink {uplink}: {host} menolak sertifikat gateway ini: {error}",
        "periksa cert_file di [[uplink]]: kedaluwarsa, belum ada, atau dari otoritas yang tak dikenal broker",
    ),
    "uplink.tls_plain": error(
        "uplink {uplink}: {host} does not answer with TLS: {error}",
        "check port in [[uplink]]: TLS is usually on 8883; without TLS write tls = false",
        "uplink {uplink}: {host} tidak menjawab dengan TLS: {error}",
        "periksa port di [[uplink]]: TLS biasanya di 8883; tanpa TLS tulis tls = false",
    ),
    "uplink.tls_file": error(
        "uplink {uplink}: {file} cannot be used for TLS: {error}",
        "check the path, the permissions and that it is a PEM file without a passphrase",
        "uplink {uplink}: {file} tidak dapat dipakai untuk TLS: {error}",
        "periksa lokasi, hak akses, dan apakah itu berkas PEM tanpa frasa sandi",
    ),
    "uplink.tls_mismatch": error(
        "uplink {uplink}: the key {key_file} does not belong to the certificate {cert_file}",
        "put both files of the same renewal in place",
        "uplink {uplink}: kunci {key_file} bukan pasangan sertifikat {cert_file}",
        "pasang kedua berkas dari pembaruan yang sama",
    ),
    "uplink.cert_expires": warning(
        "uplink {uplink}: the certificate {file} expires in {days} days, on {date}",
        "have it renewed and put the new files in place; no restart is needed",
        "uplink {uplink}: sertifikat {file} kedaluwarsa dalam {days} hari, pada {date}",
        "minta pembaruan dan pasang berkas barunya; tidak perlu dimulai ulang",
    ),
    "uplink.cert_expired": error(
        "uplink {uplink}: the certificate {file} expired on {date}",
        "have it renewed and put the new files in place; records are kept and the gateway goes on trying",
        "uplink {uplink}: sertifikat {file} sudah kedaluwarsa pada {date}",
        "minta pembaruan dan pasang berkas barunya; record disimpan dan gateway terus mencoba",
    ),
    "uplink.clock": error(
        "uplink {uplink}: the clock says {now}, which is before {least}: no certificate can be judged",
        "see that a time server can be reached; the gateway goes on trying",
        "uplink {uplink}: jam menunjukkan {now}, sebelum {least}: sertifikat tidak dapat dinilai",
        "pastikan server waktu dapat dijangkau; gateway terus mencoba",
    ),
    "uplink.quota": error(
        "uplink {uplink}: the broker's quota is used up for {topic}: {reason}",
        "raise the quota at the broker or let its consumers catch up; records are kept until then",
        "uplink {uplink}: kuota broker habis untuk {topic}: {reason}",
        "naikkan kuota di broker atau biarkan konsumennya mengejar; record disimpan sampai saat itu",
    ),
    "uplink.too_large": error(
        "uplink {uplink}: a single message on {topic} is too large for the broker: {reason}",
        "let the broker take packets of 128 KiB; after some tries the record is set aside",
        "uplink {uplink}: satu pesan di {topic} terlalu besar bagi broker: {reason}",
        "izinkan paket 128 KiB di broker; setelah beberapa kali percobaan record itu disisihkan",
    ),
    "uplink.qos": error(
        "uplink {uplink}: {host} does not acknowledge messages: {reason}",
        "use a broker that allows QoS 1: without acknowledgements nothing would be safe",
        "uplink {uplink}: {host} tidak mengakui pesan: {reason}",
        "pakai broker yang mengizinkan QoS 1: tanpa pengakuan tidak ada yang aman",
    ),
    "uplink.no_retain": warning(
        "uplink {uplink}: {host} keeps no retained messages: alarms are heard only when they come",
        "allow retained messages at the broker",
        "uplink {uplink}: {host} tidak menyimpan pesan retained: alarm hanya terdengar saat dikirim",
        "izinkan pesan retained di broker",
    ),
    "uplink.unconfirmed": warning(
        "uplink {uplink}: no consumer confirms what comes after row {row}",
        'look at the consumer, or write confirm = "broker" in [[uplink]]; records are kept and sent again',
        "uplink {uplink}: tidak ada konsumen yang mengonfirmasi sesudah baris {row}",
        'periksa konsumennya, atau tulis confirm = "broker" di [[uplink]]; record disimpan dan dikirim ulang',
    ),
}
