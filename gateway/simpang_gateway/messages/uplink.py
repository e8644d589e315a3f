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
}
