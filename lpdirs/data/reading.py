"""Which reader a file goes to, and whose pictures are whose."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lpdirs.data import volumes
from lpdirs.data.dicom import Header, frames_of, read_header
from lpdirs.data.folder import Unusable, is_dicom, quiet_pydicom

HEADED = {".raw": (".mhd", ".nhdr"), ".zraw": (".mhd",)}  # data files, and what their headers are called
FOLDERS = 3  # so many folders of pictures are taken for patients


def read_headers(paths: list[Path]) -> tuple[list[Header], list[tuple[Path, str]]]:
    """Headers of the slices and pictures in the files, and the files that hold none with their reasons."""
    headers, rejected = [], []
    with quiet_pydicom():
        for path in paths:
            try:
                headers += _headers_of(path)
            except Unusable as reason:
                rejected.append((path, str(reason)))
    return headers, rejected


def _headers_of(path: Path) -> list[Header]:
    if volumes.is_readable(path) and not _is_dicom(path):
        if not path.exists():
            raise Unusable("cannot be read")
        if not path.is_file():
            raise Unusable("not a file")
        return volumes.headers_of(path)
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path  # the data of a .nhdr may be a.raw.gz
    if any(bare.with_suffix(suffix).exists() for suffix in HEADED.get(bare.suffix.lower(), ())):
        raise Unusable("read with its header")
    try:
        return [read_header(path)]
    except Unusable as reason:
        if str(reason) != "several frames":
            raise
    return frames_of(path)


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM whatever its name says."""
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def whose(headers: list[Header], name_of: Callable[[Path], str], patients: str) -> list[Header]:
    """The same, with patients for slices that name none: see DataSettings.patients; `name_of` gives a file's name in the data folder."""
    folder_of = lambda header: os.path.dirname(name_of(header.path))
    pictures = {folder_of(header) for header in headers if header.kind == "picture"}

    def named(header: Header) -> Header:
        if header.kind == "dicom":
            return header
        name, picture = name_of(header.path), header.kind == "picture"
        folders = patients == "folder" or (patients == "auto" and picture and len(pictures) >= FOLDERS)
        patient = f"{name}#{header.frame}" if patients == "image" and picture else (folder_of(header) or name) if folders else name
        return replace(header, patient=patient, study=patient, series=patient if picture else name)

    return [named(header) for header in headers]


def one_unit(headers: list[Header]) -> tuple[list[Header], list[tuple[Path, str]]]:
    """The slices in HU, where there are any, else those of arrays that hold a body in air, and the others as rejected; else all."""
    known = [header.in_hu for header in headers]
    known = known if any(known) else [volumes.holds_a_body(header) for header in headers]
    if not any(known):
        return headers, []
    which = list(zip(headers, known, strict=True))
    return [header for header, keep in which if keep], [(header.listed, "no HU") for header, keep in which if not keep]


def notes_on_kinds(headers: list[Header], patients_are: str) -> list[str]:
    """What to know of volumes and pictures: whose they are, and what their values stand for."""
    notes, kinds = [], {header.kind for header in headers} - {"dicom"}
    if kinds:
        patients = len({header.patient for header in headers if header.kind != "dicom"})
        files = len({header.path for header in headers if header.kind != "dicom"})
        notes.append(
            f"{files} volumes, pictures or arrays were taken for {patients} patients (setting patients: {patients_are}); where "
            f"several files are one person's, set patients to folder, or the splits do not keep people apart"
        )
        if masks := len({header.path for header in headers if header.mask}):
            notes.append(
                f"{masks} volumes look like a mask, with whole numbers that are few or in patches: read as images; leave masks out"
            )
        if len({header.kind for header in headers}) > len(kinds):
            notes.append("DICOM and other files lie together: whoever is in both counts as two patients")
    if headers and not all(header.in_hu for header in headers):
        notes.append("values are no HU: each file's own range, of 8 bits 0 to 255, became the window; arrays of a body in air kept theirs")
    return notes


def shared_series(series: dict[str, list[Header]]) -> int:
    """How many series UIDs stand for more than one patient: an anonymiser's constant, or one person under two names."""
    patients: dict[str, set[str]] = {}
    for members in series.values():
        patients.setdefault(members[0].series, set()).add(members[0].patient)
    return sum(len(names) > 1 for names in patients.values())
