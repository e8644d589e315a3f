"""docs/sizes.md and docs/sizes.svg, from a fresh run: `python -m simpang.bench.sizedocs` writes both."""

from __future__ import annotations

from pathlib import Path

from .plot import svg
from .sizes import BATCHES, ENTROPY, SEED, Sizes, measure

DOCS = Path(__file__).resolve().parents[3] / "docs"
DOCUMENT = DOCS / "sizes.md"
PICTURE = DOCS / "sizes.svg"
COMMAND = ".venv/bin/python -m simpang.bench.sizedocs"

_HEAD = f"""# Sizes

How many bytes a sample takes on the wire, beside other encodings of the same data. Anybody can make these
figures anew:

```
simpang bench sizes --seed {SEED} --svg sizes.svg
```

`--json` prints them for programs. This page and its picture were written by `{COMMAND}`; a test compares
them with a fresh run.

![Bytes a sample by encoding and batch size](sizes.svg)

## Bytes a sample, in batches of {" / ".join(map(str, BATCHES))}

"""

_TAIL = """
Means over the second and third day of seeded data, with time, without the node's identity, and without frame,
encryption or transport. Nothing of it was measured on a real link or a street.

## The data
- `air`: eight fields every 10 s (PM1, PM2.5, PM10, CO2, NO2, temperature, humidity, pressure).
- `traffic`: an arm of a junction, 22 fields every 60 s.
- `queue`: a clinic that is open in the morning, 9 fields every 60 s, day and night.

Every assumption stands in the generators: `tools/simpang/bench/airdata.py`, `trafficdata.py`, `queuedata.py`.

## The encodings
- `simpang`: t0, period and the body of a record: [specification](../protocol/SPEC.md),
  [schemas](schemas.md).
- `json`: an array of objects, one a sample, with Unix seconds and the names and numbers of
  [messages.md](messages.md).
- `senml-json`, `senml-cbor`: RFC 8428, base time once, no units; floats of single or half precision in CBOR.
- `cbor`, `messagepack`: one flat array of time, interval and scaled whole numbers, by position.
- `protobuf`: one message a sample, a numbered field a value, scaled whole numbers, zero not sent.
- `sparkplug-b`: a DDATA payload by alias, each metric with its time.
- `struct`: time, interval and whole numbers of 1, 2 or 4 bytes, the least that the data needs.

The other encodings are written in `tools/simpang/bench/encodings.py` and `rivals.py` and are tested against
published examples; each gets the benefit of the doubt where its users differ.

## The entropy estimate
For each column the best of a few simple predictors is taken, and the entropy of what it leaves, as if these
residuals were independent (`tools/simpang/bench/entropy.py`). The predictors: none, the value before, the
line through the two before, four moving averages, and the step of another column. The correction of Miller
and Madow is added. The first row of a batch counts with the entropy of the values themselves. Time is not in
it. It is an estimate, not a bound: a coder that adapts to the hour of the day can come out below it.

At 30 samples a batch takes at most 1.2 times the estimate plus 5 bytes, which is t0 and period; a test checks
it for all three.
"""


def document(sizes: Sizes) -> str:
    """Return docs/sizes.md for these figures."""
    schemas = list(sizes)
    lines = [f"| encoding | {' | '.join(schemas)} |", "|---|" + "---|" * len(schemas)]
    for name in next(iter(sizes.values())):
        label = "entropy estimate" if name == ENTROPY else f"`{name}`"
        cells = (_cell(sizes[schema][name]) for schema in schemas)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return _HEAD + "\n".join(lines) + "\n" + _TAIL


def _cell(of: dict[str, float]) -> str:
    return " / ".join(_figure(of[str(size)]) for size in BATCHES)


def _figure(value: float) -> str:
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def main() -> None:
    """Measure, and write both files."""
    sizes = measure()
    DOCUMENT.write_text(document(sizes), encoding="utf-8")
    PICTURE.write_text(svg(sizes), encoding="utf-8")


if __name__ == "__main__":
    main()
