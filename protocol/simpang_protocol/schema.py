"""The schemas of records: one registry from which code and documents are made or checked.

A schema id is never reused. `air`, `traffic` and `queue` may grow by appended columns; `health` and
`event` have a fixed number of columns for ever, and what is added later to them is an item of their tail.
Units are SenML units (RFC 8428, RFC 8798) where one exists.
"""

PREVIOUS = 0
NOMINAL = 1
AVERAGE = 2
CROSS = 3

# Values and predictor states stay inside these bounds, or the body is invalid.
LIMIT = 1 << 26
FIXED_LIMIT = (1 << 30) - 1


class Field:
    """One column: the physical value is raw / scale in `unit`; the rest steers the codec."""

    def __init__(
        self, name: str, unit: str, scale: int, nominal: int, k0: int, predictor: int, k: int, signed: bool
    ) -> None:
        self.name = name
        self.unit = unit
        self.scale = scale
        self.nominal = nominal
        self.k0 = k0
        self.predictor = predictor
        self.k = k
        self.signed = signed


class Schema:
    """A record type. `fixed` says that the columns never change and that items may follow them."""

    def __init__(self, number: int, name: str, fixed: bool, fields: "tuple[Field, ...]") -> None:
        self.number = number
        self.name = name
        self.fixed = fixed
        self.fields = fields
        self.limit = FIXED_LIMIT if fixed else LIMIT

    def index(self, name: str) -> int:
        """Return the column of a field. Raises KeyError for an unknown name."""
        for number, field in enumerate(self.fields):
            if field.name == name:
                return number
        raise KeyError(name)


AIR = Schema(
    1,
    "air",
    False,
    (
        Field("pm1", "ug/m3", 10, 0, 7, PREVIOUS, 2, False),
        Field("pm25", "ug/m3", 10, 0, 7, CROSS, 2, False),
        Field("pm10", "ug/m3", 10, 0, 7, CROSS, 3, False),
        Field("co2", "ppm", 1, 420, 6, AVERAGE, 2, True),
        Field("temperature", "Cel", 100, 1500, 9, PREVIOUS, 2, True),
        Field("humidity", "%RH", 10, 500, 7, PREVIOUS, 1, True),
        Field("pressure", "hPa", 10, 10132, 6, PREVIOUS, 0, True),
        Field("no2", "ppb", 10, 150, 6, AVERAGE, 4, True),
        Field("voc_index", "/", 1, 100, 5, PREVIOUS, 2, True),
        Field("nox_index", "/", 1, 1, 3, PREVIOUS, 1, True),
    ),
)

HEALTH = Schema(
    4,
    "health",
    True,
    (
        Field("uptime", "s", 1, 0, 12, NOMINAL, 0, False),
        Field("reset_cause", "/", 1, 0, 1, NOMINAL, 0, False),
        Field("free_heap", "B", 1, 0, 15, NOMINAL, 0, False),
        Field("held", "{record}", 1, 0, 4, NOMINAL, 0, False),
        Field("created", "{record}", 1, 0, 10, NOMINAL, 0, False),
        Field("freed", "{record}", 1, 0, 10, NOMINAL, 0, False),
        Field("dropped", "{record}", 1, 0, 1, NOMINAL, 0, False),
        Field("supply", "mV", 1, 0, 11, NOMINAL, 0, False),
        Field("temperature", "Cel", 10, 300, 6, NOMINAL, 0, True),
        Field("link_quality", "%", 1, 0, 5, NOMINAL, 0, False),
    ),
)

EVENT = Schema(
    5,
    "event",
    True,
    (
        Field("code", "/", 1, 0, 4, NOMINAL, 0, False),
        Field("severity", "/", 1, 0, 1, NOMINAL, 0, False),
        Field("arg1", "/", 1, 0, 4, NOMINAL, 0, False),
        Field("arg2", "/", 1, 0, 4, NOMINAL, 0, False),
    ),
)

SCHEMAS = {schema.number: schema for schema in (AIR, HEALTH, EVENT)}


def by_name(name: str) -> Schema:
    """Return the schema of a name. Raises KeyError for an unknown one."""
    for schema in SCHEMAS.values():
        if schema.name == name:
            return schema
    raise KeyError(name)
