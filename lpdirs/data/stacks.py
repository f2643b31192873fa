"""Which slices belong together: series, the stacks within a series, and the series of a study that show the same."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable
from pathlib import Path

from lpdirs.data.dicom import MARKS, Header, turn

SAME_MM = 0.01  # positions that are closer are the same
FEW = 0.1  # share of positions that may repeat in a series without its being several stacks
SECONDS = 5.0  # between the acquisitions of two series from which they are not two reconstructions of one
INTERLEAVED = ("ConvolutionKernel", "TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase")  # differ within one stack never


def arrange(headers: list[Header]) -> tuple[dict[str, list[Header]], list[tuple[Path, str]]]:
    """One stack of each series, ordered from head to feet, patient by patient; and those left out, with the reason.

    A series is what patient, study and series UID say together. One that shows several people is refused. Of several stacks in
    one series the one with most slices is taken, of equal ones the first by its marks (`MARKS`), and the others are named. Of the
    series of a study that show most of the same positions the longest stays, a supine one before a prone one.
    """
    series: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        series[header.group].append(header)
    ordered: dict[str, list[Header]] = {}
    rejected: list[tuple[Path, str]] = []
    for group, members in sorted(series.items()):
        if any(len({h.person[i] for h in members if h.person and h.person[i]}) > 1 for i in range(3)):
            rejected += [(h.path, "contradiction") for h in members]
            continue
        once, doubled = _once(members)
        stack, others, why = _choose(_stacks(once))
        kept, repeated = _in_order(stack)
        if kept:
            ordered[group] = kept
        rejected += [(h.path, "repeated position") for h in doubled + repeated] + [(h.path, why) for h in others]
    for group, why in _repeated(ordered):
        rejected += [(header.path, why) for header in ordered.pop(group)]
    return ordered, rejected


def _once(members: list[Header]) -> tuple[list[Header], list[Header]]:
    """Slices, and those that are copies of others: the same instance at the same position."""
    first: dict[Hashable, Header] = {}
    copies = []
    for header in sorted(members, key=lambda h: h.path):
        key = (header.instance, header.marks, round(header.z_mm / SAME_MM)) if header.instance else header.path
        if first.setdefault(key, header) is not header:
            copies.append(header)
    return list(first.values()), copies


def _in_order(stack: list[Header]) -> tuple[list[Header], list[Header]]:
    """From head to feet, one slice a position, and the others."""
    kept: list[Header] = []
    repeated: list[Header] = []
    for header in sorted(stack, key=lambda h: (-h.z_mm, h.number, h.path)):
        (repeated if kept and abs(header.z_mm - kept[-1].z_mm) < SAME_MM else kept).append(header)
    return kept, repeated


def _places(stack: list[Header]) -> int:
    return len({round(h.z_mm / SAME_MM) for h in stack})


def _many(stack: list[Header]) -> bool:
    """Whether positions repeat so often that the stack is several."""
    return len(stack) - _places(stack) > max(1, FEW * _places(stack))


def _stacks(members: list[Header]) -> list[list[Header]]:
    """The stacks of a series: divided by what tells them apart, as long as positions repeat."""
    stacks = [members]
    for divide in (
        lambda h: (turn(h.orientation), h.shape, tuple(round(mm, 2) for mm in h.spacing)),
        *_by_marks(),
        lambda h: h.path.parent,
    ):
        stacks = [part for stack in stacks for part in _divided(stack, divide)]
    for i, tag in enumerate(MARKS):
        if tag in INTERLEAVED:
            stacks = [part for stack in stacks for part in _apart(stack, lambda h, i=i: h.marks[i] if h.marks else "")]  # type: ignore[misc]
    stacks = [part for stack in stacks for part in _by_number(stack)]
    return [part for stack in stacks for part in _by_restart(stack)]


def _by_marks() -> list[Callable[[Header], Hashable]]:
    return [lambda h, i=i: h.marks[i] if h.marks else "" for i in range(len(MARKS))]  # type: ignore[misc]


def _grouped(stack: list[Header], by: Callable[[Header], Hashable]) -> list[list[Header]]:
    parts: dict[Hashable, list[Header]] = defaultdict(list)
    for header in stack:
        parts[by(header)].append(header)
    return sorted(parts.values(), key=lambda part: -_places(part))


def _divided(stack: list[Header], by: Callable[[Header], Hashable]) -> list[list[Header]]:
    """The parts of a stack, where it repeats positions, its largest part repeats fewer, and shows at least half of all positions."""
    parts, places = _grouped(stack, by), _places(stack)
    largest = _places(parts[0])
    if len(parts) > 1 and len(stack) > places and largest >= places / 2 and len(parts[0]) / largest < len(stack) / places:
        return parts
    return [stack]


def _apart(stack: list[Header], by: Callable[[Header], Hashable]) -> list[list[Header]]:
    """The parts of a stack, where the two largest ones cover much of the same stretch, at positions between each other's."""
    parts = _grouped(stack, by)
    if len(parts) < 2 or len(parts[1]) < 5:
        return [stack]
    (low, high), (low2, high2) = ((min(h.z_mm for h in part), max(h.z_mm for h in part)) for part in parts[:2])
    return parts if min(high, high2) - max(low, low2) > min(high - low, high2 - low2) / 2 else [stack]


def _by_number(stack: list[Header]) -> list[list[Header]]:
    """The stacks of slices that only their numbers tell apart: one after the other, or in turn at each position; else [stack]."""
    if not _many(stack):
        return [stack]
    runs: list[list[Header]] = [[]]
    seen: set[int] = set()
    at: dict[int, list[Header]] = defaultdict(list)
    for header in sorted(stack, key=lambda h: (h.number, h.path)):
        place = round(header.z_mm / SAME_MM)
        if place in seen:
            runs, seen = [*runs, []], set()
        runs[-1].append(header)
        seen.add(place)
        at[place].append(header)
    if any(len({h.number for h in here}) < len(here) for here in at.values()):
        return [stack]
    depth = max(map(len, at.values()))
    if len(runs) == depth:
        return runs
    return [list(turn) for turn in zip(*at.values(), strict=True)] if all(len(here) == depth for here in at.values()) else [stack]


def _by_restart(stack: list[Header]) -> list[list[Header]]:
    """The stacks of slices at different positions whose numbers begin again: people whom an anonymiser gave one name.

    One stack where numbers are unique, all the same, or missing; single slices, which nobody will take, where they make no sense.
    """
    numbers = [h.number for h in sorted(stack, key=lambda h: -h.z_mm)]
    if _many(stack) or len(numbers) - len(set(numbers)) <= max(1, FEW * len(numbers)) or len(set(numbers)) < 3:
        return [stack]
    steps = [b - a for a, b in zip(numbers, numbers[1:], strict=False)]
    way = 1 if sum(step > 0 for step in steps) >= sum(step < 0 for step in steps) else -1
    runs: list[list[Header]] = [[]]
    for header, step in zip(sorted(stack, key=lambda h: -h.z_mm), [way, *steps], strict=True):
        if step * way <= 0:
            runs.append([])
        runs[-1].append(header)
    return runs


def _choose(stacks: list[list[Header]]) -> tuple[list[Header], list[Header], str]:
    """The stack that is taken, the slices of the others, and why they are not."""
    stacks = sorted(stacks, key=lambda s: (-_places(s), min((h.marks, h.number, h.path) for h in s)))
    best = stacks[0]
    if _many(best) or (len(stacks) > 3 and _places(best) < 3):  # or crumbs, of slices that do not follow each other
        return [], [h for stack in stacks for h in stack], "mixed stacks"
    return best, [h for stack in stacks[1:] for h in stack], "another stack"


def _repeated(series: dict[str, list[Header]]) -> list[tuple[str, str]]:
    """Series of which most positions (to 1 mm) are shown by another that stays, each with the reason."""
    shown: dict[tuple[str, str], list[tuple[set[int], list[Header]]]] = defaultdict(list)
    repeated = []
    prone = lambda headers: turn(headers[0].orientation)[1]
    for group, headers in sorted(series.items(), key=lambda item: (prone(item[1]), -len(item[1]), item[0])):
        positions, study = {round(h.z_mm) for h in headers}, (headers[0].patient, headers[0].study)
        same = next((other for places, other in shown[study] if len(positions & places) > len(positions) / 2), None)
        if same is None:
            shown[study].append((positions, headers))
        else:
            repeated.append((group, "another acquisition" if _another_time(headers, same) else "repeated series"))
    return repeated


def _another_time(headers: list[Header], others: list[Header]) -> bool:
    """Whether two series are no two reconstructions of one acquisition: another posture, breath hold, or time."""
    a, b = headers[0], others[0]
    breath = lambda h: re.findall(r"insp|exp", h.about)
    times = [min((h.time for h in s if h.time is not None), default=None) for s in (headers, others)]
    late = None not in times and abs(times[0] - times[1]) > SECONDS  # type: ignore[operator]
    return turn(a.orientation) != turn(b.orientation) or breath(a) != breath(b) or late
