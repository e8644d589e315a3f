"""Messages about nodes."""

from .message import error, info, warning

NODE = {
    "node.added": info("node {node} was added at {place}", "node {node} ditambahkan di {place}"),
    "node.unknown": error(
        "node {node} is not in the registry",
        "list the nodes with `simpang node list`, or add it with `simpang node add`",
        "node {node} tidak ada di registri",
        "lihat daftar dengan `simpang node list`, atau tambahkan dengan `simpang node add`",
    ),
    "node.revoked": error(
        "node {node} is revoked",
        "give the board a new id with `simpang node add`; a revoked id is never used again",
        "node {node} telah dicabut",
        "beri papan itu id baru dengan `simpang node add`; id yang dicabut tidak dipakai lagi",
    ),
    "node.was_revoked": info(
        "node {node} was revoked and is refused from now on: {why}",
        "node {node} dicabut dan kini ditolak: {why}",
    ),
    "node.rekeyed": info(
        "node {node} was given new keys, generation {generation}; they count from its next flashing on",
        "node {node} mendapat kunci baru, generasi {generation}; berlaku sejak flashing berikutnya",
    ),
    "node.promoted": info(
        "node {node} speaks with its new keys, generation {generation}; the old ones are refused from now on",
        "node {node} memakai kunci barunya, generasi {generation}; kunci lama kini ditolak",
    ),
    "node.command": error(
        "node {node} cannot be given this command: {error}",
        "see `simpang node command --help`",
        "perintah ini tidak dapat diberikan ke node {node}: {error}",
        "lihat `simpang node command --help`",
    ),
    "node.unread": error(
        "the configuration of node {node} could not be read: {state}, {text}",
        "try again when the node is heard; a node that sleeps needs a longer --wait",
        "konfigurasi node {node} tidak dapat dibaca: {state}, {text}",
        "coba lagi saat node terdengar; node yang tidur perlu --wait lebih lama",
    ),
    "node.floor_jump": warning(
        "port {port}, node {node} gave up more than 4096 records at once ({count} times)",
        "after a long outage that is as it should be; else look at that board and its key",
        "port {port}, node {node} melepas lebih dari 4096 record sekaligus ({count} kali)",
        "setelah gangguan panjang itu wajar; jika tidak, periksa papan itu dan kuncinya",
    ),
    "node.epochs_used_up": error(
        "node {node} has used up its epochs",
        "give the board a new id with `simpang node add`",
        "epoch node {node} sudah habis",
        "beri papan itu id baru dengan `simpang node add`",
    ),
    "node.commands_used_up": error(
        "node {node} has used up its command ids",
        "give the board a new id with `simpang node add`",
        "id perintah node {node} sudah habis",
        "beri papan itu id baru dengan `simpang node add`",
    ),
}
