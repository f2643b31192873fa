"""Why a file is not used: every file below the data folder becomes a slice, or a row of rejected.csv with one of these reasons."""

REASONS = {
    "cannot be read": "the file or folder could not be opened (rights, memory, a broken link): mend that, and the next build reads it",
    "hidden": "its name, or that of a folder above it, begins with a dot: it was not opened; rename it to have it read",
    "not a file": "a pipe, a socket or a device",
    "linked again": "a link to a folder that is read already",
    "archive": "a tar, gzip, 7z or rar file, or a zip that is damaged, encrypted, too large or within another: unpack it",
    "another format": "neither DICOM, nor a volume, picture or array that is read (NIfTI, MetaImage, NRRD, PNG, TIFF, JPEG, BMP, NumPy)",
    "no reader": "a volume: install the extra lpdirs[formats] (SimpleITK), and the next build reads it",
    "odd name": "its name holds bytes that are no UTF-8, which the library that reads volumes cannot open: rename it",
    "read with its header": "the data of a MetaImage or NRRD header beside it, which is read",
    "no picture": "an array that holds no images (N, H, W), or one value alone, or a file of several arrays: keep one",
    "array axes": "an array of shape (H, H, N): move the slices to the front, np.moveaxis(array, 2, 0) for (N, H, H)",
    "no HU": "its values are no HU, and other files of the folder are CT in HU: give it a folder of its own",
    "DICOMDIR": "an index of DICOM files, which are read themselves",
    "not DICOM": "the file is not DICOM, or its header cannot be read",
    "not a CT image": "DICOM, but by SOP class or modality not a CT image (a segmentation, dose, report, another modality)",
    "several frames": "a file of several frames, or volumes, that does not say where each lies",
    "colour": "more than one sample a pixel",
    "no pixels": "there is no pixel data",
    "implausible size": "fewer than 32 (of pictures 16) or more than 4096 rows or columns, or a file too large to be one",
    "no geometry": "orientation, position or pixel spacing is missing, not a number, or contradicts itself",
    "no rescale": "slope or intercept is missing or not a number, or the values are said to be no HU",
    "not axial": "the slice is tilted by more than 20 degrees from the axial plane (a reformat, or a scout)",
    "contradiction": "its series holds slices of several people (names, dates of birth or sexes differ)",
    "mixed stacks": "its series holds several slices at most positions, and nothing says which of them belong together",
    "another stack": "its series holds several stacks (kernels, phases, acquisitions); the one with most slices was taken",
    "repeated position": "another slice of its series has the same position",
    "repeated series": "a longer series of the same study shows most of the same positions (another kernel, or thickness)",
    "another acquisition": "a longer series of the same study shows most of the same positions at another time, in another breath hold "
    "(inspiration, expiration), or in another posture (prone, supine)",
    "damaged pixels": "the pixel data is truncated or cannot be decoded",
    "decoding hangs": "its compressed pixels were not decoded within a minute: write it without compression",
    "not finite": "a volume, picture or array that holds NaN or infinity: write what is not known (beyond the field of view) as air",
    "implausible HU": "the values are not those of a body in air: no air, no soft tissue, or values that no scanner writes",
    "same pixels": "another file holds the same pixels",
    "no lung": "the share of lung in the body is below min_lung",
}
TRANSIENT = ("cannot be read", "no reader")  # lie in the machine and not in the file: never remembered
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
FORMATS = (".h5", ".hdf5", ".mat", ".hdr", ".img", ".mnc", ".mgz", ".svs", ".gif", ".pdf")


class Unusable(Exception):
    """A file that cannot be used; str() is one of REASONS."""


def unreadable(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, lies in the machine: rights, memory, disk, and not in what the file says."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):  # codecs raise OSError without
            return True
        error = error.__cause__ or error.__context__
    return False
