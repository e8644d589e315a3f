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
