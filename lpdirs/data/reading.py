"""Which reader a file goes to; what lies in zip files; and whose pictures are whose."""

import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lpdirs.data import volumes
from lpdirs.data.dicom import Header, read_header
from lpdirs.data.enhanced import frames_of
from lpdirs.data.folder import list_files
from lpdirs.data.reasons import Unusable, unreadable

HEADED = {".raw": (".mhd", ".nhdr"), ".zraw": (".mhd",), ".gz": (".nhdr",)}  # data files, and what their headers are called
MOST_FILES, MOST_BYTES = 200_000, 64 * 2**30  # of a zip file
FOLDERS = 3  # so many folders of pictures are taken for patients


def read_headers(paths: list[Path]) -> tuple[list[Header], list[tuple[Path, str]]]:
    """Headers of the slices and pictures in the files, and the files that hold none with their reasons."""
    headers, rejected = [], []
    for path in paths:
        try:
            headers += _headers_of(path)
        except Unusable as reason:
            rejected.append((path, str(reason)))
    return headers, rejected


def _headers_of(path: Path) -> list[Header]:
    if volumes.is_readable(path):
        if not path.exists():
            raise Unusable("cannot be read")
        if not path.is_file():
            raise Unusable("not a file")
        return volumes.headers_of(path)
    if any(path.with_suffix(suffix).exists() for suffix in HEADED.get(path.suffix.lower(), ())):
        raise Unusable("read with its header")
    try:
        return [read_header(path)]
    except Unusable as reason:
        if str(reason) != "several frames":
            raise
    try:
        with warnings.catch_warnings(action="ignore"):
            return frames_of(path)
    except Unusable:
        raise
    except Exception as error:  # whatever a hostile file makes the parser raise
        raise Unusable("cannot be read" if unreadable(error) else "not DICOM") from error


def unpack(archives: list[Path], source: Path, folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """What lies in zip files below `source`, written below `folder`, as if each were a folder; and what cannot be used, with reasons."""
    files, rejected = [], []
    for path in archives:
        into = folder / path.relative_to(source)
        try:
            _extract(path, into)
        except (Unusable, zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError, EOFError) as error:
            rejected.append((path, "cannot be read" if isinstance(error, OSError) and unreadable(error) else "archive"))
            continue
        found, others = list_files(into)
        files += found
        rejected += others
    return files, rejected


def _extract(path: Path, into: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) > MOST_FILES or sum(member.file_size for member in members) > MOST_BYTES:
            raise Unusable("archive")
        for member in members:
            archive.extract(member, into)  # never outside of it


def whose(headers: list[Header], name_of: Callable[[Path], str], patients: str) -> list[Header]:
    """The same, with patients for slices that name none: see DataSettings.patients; `name_of` gives a file's name in the data folder."""
    pictures = {header.path: os.path.dirname(name_of(header.path)) for header in headers if header.kind == "picture"}
    folders = patients == "folder" or (patients == "auto" and len(set(pictures.values())) >= FOLDERS)

    def named(header: Header) -> Header:
        if header.kind == "dicom":
            return header
        name = name_of(header.path)
        patient = name
        if patients == "image" and header.kind == "picture":
            patient = f"{name}#{header.frame}"
        elif header.kind == "picture" and folders and pictures[header.path]:
            patient = pictures[header.path]
        return replace(header, patient=patient, study=patient, series=patient if header.kind == "picture" else name)

    return [named(header) for header in headers]
