"""Where a run's slices come from: the user's folder, or what data_manifests brings along."""

from pathlib import Path

from lpdirs.base.places import home
from lpdirs.base.progress import Progress
from lpdirs.data.private import where
from lpdirs.phantom.cohort import Cohort, write_cohort
from lpdirs.runs.settings import SAMPLE, SourceSettings


def source_of(settings: SourceSettings, own: Path) -> Path:
    """The folder of DICOM files; a synthetic cohort is written to own/dicom first."""
    if settings.data_dir is not None:
        return where(settings.data_dir).resolve()
    if settings.cohort == SAMPLE:
        return home() / "data_manifests" / SAMPLE / "dicom"
    write_cohort(Cohort.read(home() / "data_manifests" / f"{settings.cohort}.json"), own / "dicom", Progress("writing patients"))
    return own / "dicom"


def about(data: dict) -> str:
    """What a data set says of itself: whose names stand in it, and what to know before its numbers are believed."""
    names = {
        "pseudonyms": "Patients, series and files appear under pseudonyms; what these stand for is in the private folder (~/.lpdirs), "
        "which is not to be shared. Pictures and the values of pixels are as they are: whoever knows the patient may know the slice.",
        "as in the files": "Names are as in the files: they are synthetic, or those of a public collection.",
    }
    return "\n".join([names[data["names"]], *(f"Note: {note}" for note in data["notes"])])
