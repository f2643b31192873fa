"""Which patients are trained on, and what a reader of the numbers should know about who is left."""

import hashlib
from collections import Counter

import pandas as pd

SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
FEW_SLICES = 100  # to train on: a model learns them by heart


def split_of(patient: str) -> str:
    """The patient's split: from a hash of the key alone, so that it never changes when others come or go."""
    place = _place(patient)
    for name, share in SPLITS.items():
        if place < share:
            return name
        place -= share
    return "test"


def split_patients(patients: list[str], written: dict[str, str]) -> dict[str, str]:
    """The split of each patient: as `written`, else `split_of`, or, where that leaves a part empty, by the order of the same hashes.

    Then the last patient is tested on, the one before is for validation, and all others are trained on, as far as there are enough: one
    patient alone is trained on.
    """
    each = {patient: written.get(patient) or split_of(patient) for patient in set(patients)}
    if set(each.values()) == set(SPLITS):
        return each
    ordered = sorted(each, key=_place)
    parts = dict.fromkeys(ordered, "train")
    if len(ordered) > 1:
        parts[ordered[-1]] = "test"
    if len(ordered) > 2:
        parts[ordered[-2]] = "validation"
    return parts


def _place(patient: str) -> float:
    return int.from_bytes(hashlib.blake2b(patient.encode(), digest_size=8).digest(), "big") / 2**64


def notes_on(table: pd.DataFrame, studies: int, shared: int, reasons: Counter) -> list[str]:
    """What to know about a data set before its numbers are believed, a sentence each; nothing where all is well."""
    patients, counts = table["patient"].nunique(), table["split"].value_counts()
    notes = []
    if patients == 1:
        many = f", of {studies} studies: if these are different people, give each a PatientID of its own" if studies > 1 else ""
        notes.append(f"All slices are of one patient{many}. Nothing is held out, so that no number here speaks of new patients.")
    else:
        for split in SPLITS:
            if split not in counts:
                notes.append(f"No patient is left for {split}: {patients} patients are too few. Add patients.")
    if counts.get("train", 0) < FEW_SLICES:
        notes.append(f"There are {counts.get('train', 0)} slices to train on. A model will learn them by heart: add patients or slices.")
    if "true_z" not in table and table["lung_fraction"].notna().any():
        whole = table.groupby("series").agg(n=("z_fraction", "size"), known=("z_fraction", "count"))
        parts = int(((whole["n"] >= 5) & (whole["known"] == 0)).sum())
        if parts:
            notes.append(f"{parts} of {len(whole)} series show a part of the lungs alone, or hardly any: their slices have no z-position.")
    if shared:
        notes.append(f"{shared} series UIDs stand for several patients. If these are one person under several IDs, splits do not hold.")
    if reasons["cannot be read"]:
        notes.append(f"{reasons['cannot be read']} files or folders could not be opened: see rejected.csv; the next build tries again.")
    return notes
