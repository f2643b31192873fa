"""Data: DICOM to store, batches, cost at scale, the phantom. Both sides of a ratio in one run.

python -m tests.benchmarks.data [--sizes 1000 4000 16000] [--memory 20000]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pydicom
import torch
from skimage.transform import resize

from lpdirs.base.compute import cores
from lpdirs.data.build import build_dataset
from lpdirs.data.lidc import read_manifest
from lpdirs.data.series import DataSettings
from lpdirs.data.store import Loader, open_dataset
from lpdirs.measures.anatomy import MEASURES, measure
from lpdirs.measures.thorax import FACTORS
from lpdirs.phantom.cohort import Cohort, to_dicom
from lpdirs.phantom.painting import render
from lpdirs.phantom.population import sample_patients
from tests.benchmarks.bench import alternate, write

GEOMETRIC = tuple(name for name in FACTORS if name in MEASURES)
SERIES = 100  # slices each


def write_files(folder: Path, slices: int, matrix: int) -> None:
    """CT files of `matrix` px, 100 a series: a few rendered slices, each time with other grain so that no two are the same."""
    rng = np.random.default_rng(0)
    originals = [hu for p in sample_patients(4, 0) for hu in render(p, np.linspace(0.1, 0.9, 10), matrix)]
    grain = rng.normal(0, 3, (matrix, matrix)).astype(np.float32)
    cohort = Cohort("bench", 1, SERIES)
    for i in range(slices):
        patient, number = f"B{i // SERIES:04d}", i % SERIES
        path = folder / patient / f"{number:03d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        hu = originals[i % len(originals)] + (1 + i // matrix / 8) * np.roll(grain, i, 0)
        ds = to_dicom(hu, patient, number / SERIES, number, cohort)
        ds.save_as(path, enforce_file_format=True)


def straightforward(source: Path, work: Path, size: int) -> None:
    """The plain way: decode, save each slice at full size as a compressed npz, load it again, resize, save again."""
    for path in sorted(source.rglob("*.dcm")):
        ds = pydicom.dcmread(path)
        hu = ds.pixel_array.astype(np.float32) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        np.savez_compressed(work / f"{path.parent.name}-{path.stem}.full.npz", hu=hu)
    for path in sorted(work.glob("*.full.npz")):
        small = resize(np.load(path)["hu"], (size, size), anti_aliasing=True)
        np.savez_compressed(work / path.name.replace(".full", ""), hu=small.clip(-1000, 2000))


def store_against_npz(folder: Path) -> dict:
    source = folder / "source"
    write_files(source, 200, 512)
    turn = iter(range(100))

    def ours():
        build_dataset(source, folder / f"ours{next(turn)}", DataSettings(size=128), workers=1)

    def theirs():
        work = folder / f"npz{next(turn)}"
        work.mkdir()
        straightforward(source, work, 128)

    ours_s, theirs_s = alternate(ours, theirs, rounds=3)
    npz = sorted(p for p in next(folder.glob("npz*")).glob("*.npz") if ".full" not in p.name)
    slices = open_dataset(next(folder.glob("ours*")))
    loader, steps = Loader(slices, 64, 0), iter(range(10**6))

    def memory_mapped():
        for _ in range(10):
            loader[next(steps)]

    def a_file_a_slice():
        rows = np.random.default_rng(0).permutation(len(npz))[:64]
        x = np.stack([np.load(npz[i])["hu"] for i in rows]).astype(np.float32)
        torch.from_numpy((x + 1000) / 1500 - 1)[:, None]

    mapped_s, npz_s = alternate(memory_mapped, a_file_a_slice)
    return {
        "dicom_to_store": {
            "what": "200 files of 512 px to 128 px, one process each",
            "slices_per_s": round(200 / ours_s, 1),
            "straightforward_slices_per_s": round(200 / theirs_s, 1),
            "ratio": round(theirs_s / ours_s, 2),
        },
        "batches": {
            "what": "batches of 64 slices of 128 px as float tensors, shuffled",
            "slices_per_s": round(640 / mapped_s),
            "npz_slices_per_s": round(64 / npz_s),
            "ratio": round(npz_s / (mapped_s / 10), 1),
        },
    }


CHILD = """
import json, sys, time
from pathlib import Path
from lpdirs.data.build import build_dataset
from lpdirs.data.series import DataSettings
if __name__ == "__main__":
    began = time.perf_counter()
    data = build_dataset(Path(sys.argv[1]), Path(sys.argv[2]), DataSettings(size=128), workers=int(sys.argv[3]))
    print(json.dumps({"slices": data["slices"], "seconds": round(time.perf_counter() - began, 1)}))
"""


def memory(pid: int) -> int:
    """Bytes that a process and those it started hold now, what they share counted once."""
    try:
        parent = psutil.Process(pid)
        return sum(one.memory_full_info().pss for one in (parent, *parent.children(recursive=True)))
    except psutil.Error:
        return 0


def at_scale(folder: Path, slices: int, matrix: int, workers: int) -> dict:
    """Seconds, memory and disk of one build in a process of its own."""
    source, target = folder / f"source{slices}", folder / f"target{slices}"
    write_files(source, slices, matrix)
    words = [sys.executable, "-c", CHILD, str(source), str(target), str(workers)]
    process, peak = subprocess.Popen(words, stdout=subprocess.PIPE, text=True), 0
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"the build of {slices} slices failed")
    figures = json.loads(process.stdout.read().splitlines()[-1]) | {"peak_MiB": round(peak / 2**20)}
    figures |= {"slices_per_s": round(slices / figures["seconds"], 1), "store_MB": round((target / "slices.npy").stat().st_size / 1e6, 1)}
    for path in source.rglob("*.dcm"):
        path.unlink()
    return figures | {"matrix": matrix, "workers": workers}


def phantom() -> dict:
    people, t = sample_patients(8, 0), np.linspace(0.02, 0.98, 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    at128, at64 = alternate(*(lambda s=s: [render(replace(p, couch="flat"), t, s) for p in people] for s in (128, 64)))
    torch.set_num_threads(threads)
    return {"slices_per_s_at_128_px": round(128 / at128), "slices_per_s_at_64_px": round(128 / at64), "cores": 1}


def anatomy() -> dict:
    hu = np.concatenate([render(p, np.linspace(0.02, 0.98, 16), 64) for p in sample_patients(32, 0)])
    found, threads = {}, torch.get_num_threads()
    for what, names in (("the six of `thorax`", GEOMETRIC), ("all seventeen", tuple(MEASURES))):
        for n in sorted({1, threads}):
            torch.set_num_threads(n)
            (seconds,) = alternate(lambda names=names: measure(hu, 6.56, names))
            found[f"{what}, {n} {'core' if n == 1 else 'cores'}"] = round(len(hu) / seconds)
    torch.set_num_threads(threads)
    return {"what": "slices a second at 64 px"} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 4000], help="slices of 512 px; a file is 0.5 MB")
    parser.add_argument("--memory", type=int, default=0, help="slices of 128 px to build in one process, for its peak memory")
    words = parser.parse_args()
    write("measuring", {"anatomy": anatomy()})
    figures = {"phantom": phantom()}
    with tempfile.TemporaryDirectory() as name:
        figures |= store_against_npz(Path(name))
    runs = [(n, 512, cores()) for n in words.sizes] + [(n, 128, 1) for n in ([words.memory] if words.memory else [])]
    costs = []
    for n, matrix, workers in runs:
        with tempfile.TemporaryDirectory() as name:
            began = time.perf_counter()
            costs.append(at_scale(Path(name), n, matrix, workers))
            print(n, "slices:", costs[-1], f"{time.perf_counter() - began:.0f} s with writing the files", flush=True)
    figures["cost"] = costs
    at_512 = [c for c in costs if c["matrix"] == 512]
    if at_512:
        last, manifest = at_512[-1], read_manifest()
        n = int(manifest["slices"].sum())
        per_core = last["slices_per_s"] / last["workers"]
        figures["lidc_on_16_cores"] = {
            "basis": f"slices a second and core at {last['slices']} slices, times 16; the disk must deliver as fast",
            "minutes": round(n / (per_core * 16) / 60, 1),
            "disk_MB_per_s": round(manifest["bytes"].sum() / 1e6 / (n / (per_core * 16))),
            "download_GB": round(manifest["bytes"].sum() / 1e9, 1),
            "store_GB_at_128_px": round(n * 128 * 128 * 2 / 1e9, 1),
        }
    write("data", figures)


if __name__ == "__main__":
    main()
