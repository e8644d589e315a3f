"""The schemas of records: one registry from which code and documents are made or checked.

A schema id is never reused. `air`, `traffic` and `queue` may grow by appended columns; `health` and
`event` have a fixed number of columns for ever, and what is added later to them is an item of their tail.
Units are SenML units (RFC 8428, RFC 8798) where one exists.
"""

PREVIOUS = 0
NOMINAL = 1
AVERAGE = 2
CROSS = 3
PREDICTORS = ("previous", "nominal", "average", "cross")

# As k of a column: all residuals are zero and none is sent.
STILL = 15

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Row = tuple[int | None, ...]
    Values = Mapping[str, float | None]

# Values and predictor states stay inside these bounds, or the body is invalid.
LIMIT = 1 << 26
FIXED_LIMIT = (1 << 30) - 1


class Field:
    """One column: the physical value is raw * step / scale in `unit`; the rest steers the codec.

    One of `step` and `scale` is 1. `nominal`, `k0`, `predictor` and `k` never change once records exist.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        scale: int,
        nominal: int,
        k0: int,
        predictor: int,
        k: int,
        signed: bool,
        step: int = 1,
    ) -> None:
        self.name = name
        self.unit = unit
        self.scale = scale
        self.nominal = nominal
        self.k0 = k0
        self.predictor = predictor
        self.k = k
        self.signed = signed
        self.step = step

    @property
    def resolution(self) -> float:
        """The physical value of one raw unit: 0.1, 1 or 5."""
        return self.step / self.scale if self.scale > 1 else self.step

    def value(self, raw: int) -> float:
        """Return the physical value; an int where the resolution is whole."""
        # True division gives the float nearest to the decimal, and its repr is that decimal: 12.3.
        return raw * self.step / self.scale if self.scale > 1 else raw * self.step

    def raw(self, value: float) -> int:
        """Return the raw value that is nearest to a physical one."""
        return round(value * self.scale / self.step)


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

    def row(self, values: "Values") -> "Row":
        """Return raw values in the order of the columns; what is not in `values`, or None there, is None.

        Raises KeyError for a name that is no field.
        """
        row: list[int | None] = [None] * len(self.fields)
        for name in values:
            value = values[name]
            number = self.index(name)
            row[number] = None if value is None else self.fields[number].raw(value)
        return tuple(row)


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
        Field("no2", "ppb", 10, 180, 6, AVERAGE, 4, True),
        Field("voc_index", "/", 1, 100, 4, PREVIOUS, 2, True),
        Field("nox_index", "/", 1, 1, 0, AVERAGE, 0, True),
    ),
)

# Of the traffic schema: the bins of the speed histogram begin at 0, 10 ... km/h, the last one is open.
SPEED_BIN_KMH = 10
SPEED_BINS = 8

TRAFFIC = Schema(
    2,
    "traffic",
    False,
    (
        Field("motorcycle_forward", "count", 1, 0, 2, AVERAGE, 2, False),
        Field("motorcycle_backward", "count", 1, 0, 2, AVERAGE, 2, False),
        Field("car_forward", "count", 1, 0, 1, AVERAGE, 1, False),
        Field("car_backward", "count", 1, 0, 1, AVERAGE, 1, False),
        Field("heavy_forward", "count", 1, 0, 0, NOMINAL, 0, False),
        Field("heavy_backward", "count", 1, 0, 0, NOMINAL, 0, False),
        Field("other_forward", "count", 1, 0, 0, NOMINAL, 0, False),
        Field("other_backward", "count", 1, 0, 0, NOMINAL, 0, False),
        Field("unknown_forward", "count", 1, 0, 0, NOMINAL, 0, False),
        Field("unknown_backward", "count", 1, 0, 0, NOMINAL, 0, False),
        Field("speed_0", "count", 1, 0, 0, NOMINAL, 15, False),
        Field("speed_10", "count", 1, 0, 0, NOMINAL, 0, False),
        Field("speed_20", "count", 1, 0, 1, NOMINAL, 0, False),
        Field("speed_30", "count", 1, 0, 2, AVERAGE, 2, False),
        Field("speed_40", "count", 1, 0, 2, AVERAGE, 2, False),
        Field("speed_50", "count", 1, 0, 0, NOMINAL, 0, False),
        Field("speed_60", "count", 1, 0, 0, NOMINAL, 0, False),
        Field("speed_70", "count", 1, 0, 0, NOMINAL, 15, False),
        Field("speed_mean", "km/h", 2, 76, 4, AVERAGE, 3, True),
        Field("speed_p85", "km/h", 2, 94, 4, CROSS, 3, True),
        Field("occupancy", "%", 10, 0, 5, AVERAGE, 5, False),
        Field("observed", "%", 1, 100, 0, NOMINAL, 15, True),
    ),
)

QUEUE = Schema(
    3,
    "queue",
    False,
    (
        Field("arrivals", "count", 1, 0, 0, NOMINAL, 15, False),
        Field("called", "count", 1, 0, 0, NOMINAL, 15, False),
        Field("served", "count", 1, 0, 0, CROSS, 15, False),
        Field("left", "count", 1, 0, 0, NOMINAL, 15, False),
        Field("waiting", "count", 1, 0, 0, PREVIOUS, 15, False),
        Field("wait_mean", "s", 1, 0, 10, PREVIOUS, 5, False, 5),
        Field("wait_max", "s", 1, 0, 10, CROSS, 3, False, 5),
        Field("counters_busy", "count", 1, 0, 0, PREVIOUS, 15, False),
        Field("observed", "%", 1, 100, 0, NOMINAL, 15, True),
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

SCHEMAS = {schema.number: schema for schema in (AIR, TRAFFIC, QUEUE, HEALTH, EVENT)}


def by_name(name: str) -> Schema:
    """Return the schema of a name. Raises KeyError for an unknown one."""
    for schema in SCHEMAS.values():
        if schema.name == name:
            return schema
    raise KeyError(name)
