"""What a boot finds in the journal's folder: the segments that count, and the accounts up to them."""

import os

from node.segment import Segment, name_of, parse_name, read_header, read_record, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from node.segment import Header


class Found:
    """`segments`, oldest first; `created` and `dropped` records; `gone`, epochs that are gone without the
    gateway's knowledge, with their floors; `next_index` for the next segment."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.created = 0
        self.dropped = 0
        self.gone: dict[int, int] = {}
        self.next_index = 1


def recover(folder: str) -> Found:
    """Read all of the folder; what does not count any more is removed."""
    places = []
    for name in os.listdir(folder):
        place = parse_name(name)
        if place is None:
            remove(folder, name)
        else:
            places.append(place)
    places.sort()
    out = Found()
    segments: list[Segment] = []
    headers: list[Header] = []
    for index, epoch in places:
        out.next_index = index + 1
        header, count = _examine(folder + "/" + name_of(index, epoch))
        if header is None:
            remove(folder, name_of(index, epoch))
        else:
            segments.append(Segment(index, epoch, header.first, count, header.first + count))
            headers.append(header)
    while segments and not segments[-1].count:
        # The power went before its first record was whole: the segment before still carries the accounts.
        last = segments.pop()
        remove(folder, name_of(last.index, last.epoch))
    if not segments:
        return out
    newest = headers[len(segments) - 1]
    out.created = newest.created + segments[-1].count
    out.dropped = newest.dropped
    out.gone = newest.gone
    for number, segment in enumerate(segments):
        if number + 1 < len(segments):
            made = headers[number + 1].created - headers[number].created
            segment = _checked(segment, made, segments[number + 1].index == segment.index + 1)
        # Below the tail it was given up before the power went; the accounts already say so.
        if segment.index < newest.tail or segment.end == segment.first:
            remove(folder, name_of(segment.index, segment.epoch))
        else:
            out.segments.append(segment)
    _finish_runs(folder, out.segments)
    return out


def _finish_runs(folder: str, segments: "list[Segment]") -> None:
    """Give the rest of a run its epoch where the power went in the middle of that: were the beginning dropped
    first, the rest would get another, in which the beginning would be missed again."""
    for number in range(1, len(segments)):
        before, segment = segments[number - 1], segments[number]
        if segment.epoch == 0 and before.epoch and segment.first and segment.first == before.end:
            try:
                os.rename(
                    folder + "/" + name_of(segment.index, 0),
                    folder + "/" + name_of(segment.index, before.epoch),
                )
            except OSError:
                return
            segments[number] = Segment(segment.index, before.epoch, segment.first, segment.count, segment.end)


def _examine(path: str) -> "tuple[Header | None, int]":
    """Return the header of a segment, None where it cannot be read, and how many records are whole."""
    count = 0
    try:
        with open(path, "rb") as file:
            header = read_header(file)
            while header is not None and read_record(file) is not None:
                count += 1
    except OSError:
        return None, 0
    return header, count


def _checked(segment: Segment, made: int, follows: bool) -> Segment:
    """A segment as its successor tells it: `made` records came before that, and where it follows without a
    gap, all of them are in this one.

    Fewer are damage. More were refused: a flush failed and was durable all the same, and a later record has
    the seq.
    """
    count = min(segment.count, made)
    end = segment.first + (made if follows else count)
    return Segment(segment.index, segment.epoch, segment.first, count, end)
