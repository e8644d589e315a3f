"""Messages about frames and records."""

from .message import Message, warning

_WIRING_EN = "check wiring, earth and the baud rate"
_WIRING_ID = "periksa kabel, pentanahan, dan baud rate"
_WARY_EN = "if it goes on, compare the node's key file and look for a stranger on the line"
_WARY_ID = "bila berlanjut, cocokkan berkas kunci node dan cari perangkat asing di jalur itu"
_UPDATE_EN = "compare the versions of firmware and gateway"
_UPDATE_ID = "bandingkan versi firmware dan gateway"


def _frame(cause_en: str, next_en: str, cause_id: str, next_id: str) -> Message:
    start = "port {port}, node {node}: frames dropped ({count}): "
    start_id = "port {port}, node {node}: frame dibuang ({count}): "
    return warning(start + cause_en, next_en, start_id + cause_id, next_id)


# "frame." and the cause of simpang_protocol.errors.FrameError, or a cause that the gateway counts itself.
FRAME = {
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

RECORD = {
    "record.damaged": warning(
        "a record of node {node} cannot be decoded: {error}",
        "compare the versions of firmware and gateway",
        "record dari node {node} tidak dapat diurai: {error}",
        "bandingkan versi firmware dan gateway",
    ),
}
