"""Which slices belong together: series, the stacks within a series, and the series of a study that show the same."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lpdirs.data.dicom import MARKS, Header, turn

ALIKE = 0.01  # difference of direction cosines, and of pixel spacing in mm, from which slices are of another geometry
SAME_MM = 0.01  # positions that are closer are the same
FEW = 0.1  # share of positions that may repeat in a series without its being several stacks
SECONDS = 5.0  # between the acquisitions of two series from which they are not two reconstructions of one
ALWAYS = ("ConvolutionKernel", "TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase")  # are one within a stack
KERNELS = {"soft": 20, "standard": 30, "stnd": 30, "chst": 35, "detail": 45, "lung": 60, "bone": 70, "edge": 80, "sharp": 80}
FOLDERS = 6  # so many folders of a series may be people's; more are how an archive stores files


class Arranged(NamedTuple):
    """`series` to read, each from head to feet; `rejected` files with their reasons; `spare` series, {one that stays: those that show the
    same, which take its place where it cannot be decoded}; and how often a `preferred` kernel stayed in place of another."""

    series: dict[str, list[Header]]
    rejected: list[tuple[Path, str]]
    spare: dict[str, list[tuple[str, list[Header]]]]
    preferred: Counter


def arrange(headers: list[Header], kernel: str = "soft", thickness: float | None = None) -> Arranged:
    """One stack of each series, ordered from head to feet, patient by patient; and those left out, with the reason.

    A series is what patient, study and series UID say together. One that shows several people is refused. Of several stacks in
    one series the one with most slices is taken, of equal ones the first by its marks (`MARKS`), with those that lie wholly beyond
    it as series of their own; the others are named. Of the series of a study that show most of the same positions the longest stays,
    a supine one before a prone one; of equally long ones that of the `kernel`: soft, sharp, or a kernel's own name. With a `thickness` (mm)
    the one whose slices are nearest to it comes before a longer one.
    """
    series: dict[str, list[Header]] = defaultdict(list)
    ordered: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        (ordered if header.kind == "picture" else series)[header.group].append(header)  # pictures lie nowhere, and stay in their order
    rejected: list[tuple[Path, str]] = []
    for group, members in sorted(series.items()):
        if _several_people(members):
            rejected += [(h.listed, "contradiction") for h in members]
            continue
        once, doubled = _once(members)
        chosen, others, why = _choose(_stacks(once))
        for number, stack in enumerate(chosen):
            kept, repeated = _in_order(stack)
            ordered[f"{group}\0{number}" if number else group] = kept
            doubled = doubled + repeated
        rejected += [(h.listed, "repeated position") for h in doubled] + [(h.listed, why) for h in others]
    spare: dict[str, list[tuple[str, list[Header]]]] = defaultdict(list)
    preferred: Counter = Counter()
    for group, stays, why in _repeated({group: m for group, m in ordered.items() if m[0].kind != "picture"}, kernel, thickness):
        own, other = ordered.pop(group), ordered[stays]
        rejected += [(header.listed, why) for header in own]
        spare[stays].append((group, own))
        kernels = other[0].mark("ConvolutionKernel"), own[0].mark("ConvolutionKernel")
        preferred[kernels] += kernels[0] != kernels[1]
    return Arranged(dict(ordered), rejected, dict(spare), preferred)


def _several_people(members: list[Header]) -> bool:
    """Whether names, dates of birth or sexes contradict each other; a name that goes on where another ends does not."""
    name, *others = (sorted({h.person[i] for h in members if h.person and h.person[i]}) for i in range(3))
    letters = [re.sub(r"\W+", "", one) for one in name]
    return any(len(values) > 1 for values in others) or any(not b.startswith(a) for a, b in zip(letters, letters[1:], strict=False))


def _once(members: list[Header]) -> tuple[list[Header], list[Header]]:
    """Slices, and those that are copies of others: the same instance in all that is known of it, where instances are told apart at all."""
    places: dict[str, set[int]] = defaultdict(set)
    for header in members:
        places[header.instance].add(_place(header))
    first: dict[Hashable, Header] = {}
    copies = []
    for header in sorted(members, key=lambda h: h.path):
        known = header.instance and len(places[header.instance]) == 1
        key = (header.instance, header.number, header.time, header.marks, header.orientation, header.shape) if known else header.path
        if first.setdefault(key, header) is not header:
            copies.append(header)
    return list(first.values()), copies


def _place(header: Header) -> int:
    return round(header.z_mm / SAME_MM)


def _in_order(stack: list[Header]) -> tuple[list[Header], list[Header]]:
    """From head to feet, one slice a position, and the others."""
    kept: list[Header] = []
    repeated: list[Header] = []
    for header in sorted(stack, key=lambda h: (-h.z_mm, h.number, h.path)):
        (repeated if kept and abs(header.z_mm - kept[-1].z_mm) < SAME_MM else kept).append(header)
    return kept, repeated


def _places(stack: list[Header]) -> int:
    return len({_place(h) for h in stack})


def _many(stack: list[Header]) -> bool:
    """Whether positions repeat so often that the stack is several."""
    return len(stack) - _places(stack) > max(1, FEW * _places(stack))


def _stacks(members: list[Header]) -> list[list[Header]]:
    """The stacks of a series: divided by geometry, kernel and phase, and by all else that tells apart what repeats or alternates."""
    stacks = _alike(members)
    for tag in (*ALWAYS, *(tag for tag in MARKS if tag not in ALWAYS)):
        place, divide = list(MARKS).index(tag), _by_mark if tag in ALWAYS else _divided
        value: Callable[[Header], Hashable] = lambda h, i=place: h.marks[i] if h.marks else ""  # type: ignore[misc]
        stacks = [part for stack in stacks for part in divide(stack, value)]
    stacks = [part for stack in stacks for part in _by_folder(stack)]
    return [part for stack in stacks for part in _by_number(stack)]


def _alike(members: list[Header]) -> list[list[Header]]:
    """The slices of one geometry each: in all of a part orientation and spacing differ by less than ALIKE from those of its first slice."""
    parts: list[list[Header]] = []
    for header in members:
        own = np.array([*header.orientation, *header.spacing])
        for part in parts:
            first = part[0]
            same = (turn(first.orientation), first.shape) == (turn(header.orientation), header.shape)
            if same and np.abs(own - [*first.orientation, *first.spacing]).max() < ALIKE:
                part.append(header)
                break
        else:
            parts.append([header])
    return sorted(parts, key=lambda part: -_places(part))


def _grouped(stack: list[Header], by: Callable[[Header], Hashable]) -> list[list[Header]]:
    parts: dict[Hashable, list[Header]] = defaultdict(list)
    for header in stack:
        parts[by(header)].append(header)
    return sorted(parts.values(), key=lambda part: -_places(part))


def _by_mark(stack: list[Header], by: Callable[[Header], Hashable]) -> list[list[Header]]:
    """The parts of a stack by a mark; slices that lack it belong to the largest part that has none at their positions."""
    parts = _grouped(stack, by)
    blank = next((part for part in parts if not by(part[0])), [])
    places = {_place(header) for header in blank}
    home = next((part for part in parts if part is not blank and places.isdisjoint(map(_place, part))), None)
    if not blank or home is None:
        return parts
    return [home + blank if part is home else part for part in parts if part is not blank]


def _divided(stack: list[Header], by: Callable[[Header], Hashable]) -> list[list[Header]]:
    """The parts of a stack, where they show the same positions again, or alternate along z; [stack] where they follow each other."""
    parts, places = _grouped(stack, by), _places(stack)
    if len(parts) == 1:
        return [stack]
    largest = _places(parts[0])
    repeats = len(stack) > places and largest >= places / 2 and len(parts[0]) / largest < len(stack) / places
    along = [by(h) for h in sorted(stack, key=lambda h: -h.z_mm)]
    changes = sum(a != b for a, b in zip(along, along[1:], strict=False))
    return parts if repeats or changes - (len(parts) - 1) > max(2, FEW * len(stack)) else [stack]


def _by_folder(stack: list[Header]) -> list[list[Header]]:
    """By folders, where few of them show the same stretch: people whom an anonymiser gave one name, each in a folder."""
    folders = len({h.path.parent for h in stack})
    return _divided(stack, lambda h: h.path.parent) if 1 < folders <= FOLDERS else [stack]


def _by_number(stack: list[Header]) -> list[list[Header]]:
    """The stacks of slices that only their numbers tell apart; [stack] where numbers are missing, or follow no order."""
    at: dict[int, list[Header]] = defaultdict(list)
    for header in sorted(stack, key=lambda h: (h.number, h.path)):
        at[_place(header)].append(header)
    numbers = Counter(h.number for h in stack)
    if len(at) == len(stack) or len(numbers) < 3 or any(len({h.number for h in here}) < len(here) for here in at.values()):
        return [stack]
    depth = max(map(len, at.values()))
    even = depth > 1 and all(len(here) == depth for here in at.values())
    if len(numbers) == len(stack) and (by_place := _place_by_place(list(at.values()), depth, even)):
        return by_place
    if len(numbers) < len(stack):  # each begins to count anew: of each number the first from the head, the second, ...
        seen: Counter = Counter()
        parts: dict[int, list[Header]] = defaultdict(list)
        for header in sorted(stack, key=lambda h: -h.z_mm):
            parts[seen[header.number]].append(header)
            seen[header.number] += 1
        return _joined(list(parts.values()))
    runs = _runs(sorted(stack, key=lambda h: h.number))
    if not _many(stack):
        return [stack]  # one, but for a slice or two that repeat
    if len(runs) <= max(2, len(stack) / 4):
        return _joined(runs)
    return [list(part) for part in zip(*at.values(), strict=True)] if even else [stack]


def _place_by_place(at: list[list[Header]], depth: int, even: bool) -> list[list[Header]]:
    """The phases of a stack whose numbers go on from phase to phase at each place; nothing where they do not. `at` are the slices at each
    place, by number, `depth` the most of them. Where some are missing, numbers say which phase it is."""
    blocks = sorted((here[0].number, here[-1].number) for here in at)
    if any(last >= first for (_, last), (first, _) in zip(blocks, blocks[1:], strict=False)):
        return []
    if even:
        return [list(part) for part in zip(*at, strict=True)]
    for begin in range(depth):
        block = lambda h, b=begin: (h.number + b) // depth
        if all(len({block(h) for h in here}) == 1 for here in at) and len({block(here[0]) for here in at}) == len(at):
            phase: Callable[[Header], Hashable] = lambda h, b=begin: (h.number + b) % depth  # type: ignore[misc]
            return _grouped([h for here in at for h in here], phase)
    return []


def _runs(stack: list[Header]) -> list[list[Header]]:
    """Stretches of slices, in the order of their numbers, along which z goes one way, or stays."""
    runs: list[list[Header]] = [[]]
    for header in stack:
        run = runs[-1]
        step = header.z_mm - run[-1].z_mm if run else 0.0
        way = run[1].z_mm - run[0].z_mm if len(run) > 1 else step
        if run and np.sign(step) != np.sign(way):
            runs.append([])
        runs[-1].append(header)
    return runs


def _joined(parts: list[list[Header]]) -> list[list[Header]]:
    """Parts, with those made one that lie end to end, a step or so apart: blocks of one acquisition."""
    joined: list[list[Header]] = []
    for part in sorted(parts, key=lambda p: -max(h.z_mm for h in p)):
        before = joined[-1] if joined else None
        if before is not None and 0 < min(h.z_mm for h in before) - max(h.z_mm for h in part) < 2 * max(_step(before), _step(part)):
            before += part
        else:
            joined.append(list(part))
    return joined


def _step(stack: list[Header]) -> float:
    z = sorted(h.z_mm for h in stack)
    return max((b - a for a, b in zip(z, z[1:], strict=False)), default=10.0)


def _choose(stacks: list[list[Header]]) -> tuple[list[list[Header]], list[Header], str]:
    """The stacks that are taken, the slices of the others, and why they are not: the longest, and what lies beyond it."""
    stacks = sorted(stacks, key=lambda s: (-_places(s), min((h.marks, h.number, h.path) for h in s)))
    crumbs = len(stacks) > 3 and _places(stacks[0]) < 3
    if _many(stacks[0]) or crumbs:
        return [], [h for stack in stacks for h in stack], "mixed stacks"
    taken, others = [stacks[0]], []
    for stack in stacks[1:]:
        low, high = min(h.z_mm for h in stack), max(h.z_mm for h in stack)
        beyond = all(high < min(h.z_mm for h in own) or low > max(h.z_mm for h in own) for own in taken)
        if beyond and _places(stack) > 4 and not _many(stack):
            taken.append(stack)
        else:
            others += stack
    return taken, others, "another stack"


def _repeated(series: dict[str, list[Header]], kernel: str, thickness: float | None) -> list[tuple[str, str, str]]:
    """Series of which most positions (to 1 mm) are shown by another that stays, each with that one and the reason."""
    shown: dict[tuple[str, str], list[tuple[set[int], str]]] = defaultdict(list)
    repeated = []

    def first(item: tuple[str, list[Header]]) -> tuple:
        group, headers = item
        name = headers[0].mark("ConvolutionKernel")
        rank = sharpness(name) * (-1 if kernel == "sharp" else 1)
        supine, off = turn(headers[0].orientation)[1], 0.0 if thickness is None else _off(headers[0], thickness)
        return supine, off, -len(headers), name.lower() != kernel.lower(), rank, name, group

    for group, headers in sorted(series.items(), key=first):
        positions, study = {round(h.z_mm) for h in headers}, (headers[0].patient, headers[0].study)
        stays = next((other for places, other in shown[study] if len(positions & places) > len(positions) / 2), None)
        if stays is None:
            shown[study].append((positions, group))
        else:
            repeated.append((group, stays, "another acquisition" if _another_time(headers, series[stays]) else "repeated series"))
    return repeated


def _off(header: Header, thickness: float) -> float:
    """By how many mm the thickness of a slice differs from what is wanted; far where it is not known."""
    try:
        return round(abs(float(header.mark("SliceThickness")) - thickness), 2)
    except ValueError:
        return 1000.0


def sharpness(kernel: str) -> float:
    """About how sharp a kernel is, from 0 to 100: the number in its name (B30f, FC51), or its place among usual names."""
    number = re.search(r"\d+", kernel)
    if number:
        return min(float(number[0]), 100.0)
    return next((value for name, value in KERNELS.items() if kernel.lower().startswith(name)), 50.0)


def _another_time(headers: list[Header], others: list[Header]) -> bool:
    """Whether two series are no two reconstructions of one acquisition: another posture, breath hold, or time."""
    a, b = headers[0], others[0]
    breath = lambda h: re.findall(r"insp|exp", h.about)
    times = [min((h.time for h in s if h.time is not None), default=None) for s in (headers, others)]
    late = None not in times and abs(times[0] - times[1]) > SECONDS  # type: ignore[operator]
    return turn(a.orientation) != turn(b.orientation) or breath(a) != breath(b) or late


def preferences(preferred: Counter) -> list[str]:
    """Which kernels stayed in place of which, as a note; nothing where there was no choice."""
    said = [f"{stays or 'none named'} before {other or 'none named'} ({n} series)" for (stays, other), n in preferred.most_common() if n]
    return [f"of series that show the same positions, one kernel was taken: {', '.join(said)}; setting kernel"] if said else []
