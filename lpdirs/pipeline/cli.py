"""python -m lpdirs."""

import argparse
import sys
from pathlib import Path

import yaml
from tqdm import tqdm

from lpdirs.data.lidc import choose, fetch, read_manifest
from lpdirs.errors import UserError
from lpdirs.pipeline.grid import Grid
from lpdirs.pipeline.notebooks import run_notebook, run_notebooks
from lpdirs.pipeline.report import write_report
from lpdirs.pipeline.sweep import sweep
from lpdirs.pipeline.verify import verify


def main(words: list[str] | None = None) -> int:
    """Run the command in `words` (default: the shell's); returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lpdirs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the notebooks 01 to 06 and write the report")
    run.add_argument("--profile", default="demo", help="a file of notebooks/profiles (default: demo)")
    run.add_argument("--run", help="name of the run's folder in outputs/ (default: the profile's name)")
    run.add_argument("--data", type=Path, help="a folder of DICOM (default: the profile's synthetic cohort)")
    run.add_argument("--scheduler", help="address of a running Dask cluster that reads the data (default: processes on this machine)")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--outputs", default="outputs", help="where runs are written (default: outputs)")
    run.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings in place of the profile's")
    run.add_argument("--again", action="store_true", help="run notebooks again that are done; trained models are kept")
    get = commands.add_parser("fetch", help="download LIDC-IDRI, or part of it, from the NCI Imaging Data Commons")
    get.add_argument("collection", choices=["lidc"])
    get.add_argument("--patients", type=int, help="the first N patients of data_manifests/lidc_idri.csv")
    get.add_argument("--series-file", type=Path, help="a text file with one SeriesInstanceUID a line")
    get.add_argument("--to", type=Path, required=True, help="where patients' folders are written")
    get.add_argument("--endpoint-url", help="a mirror of the bucket, in place of the public one")
    many = commands.add_parser("sweep", help="run all configurations of a grid side by side, and notebook 07, which compares them")
    many.add_argument("grid", type=Path, help="a YAML file such as notebooks/profiles/grid_paper.yaml")
    many.add_argument("--data", type=Path, help="a folder of DICOM (default: the profile's synthetic cohort)")
    many.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of all configurations, before the file's")
    many.add_argument("--outputs", default="outputs", help="where the sweep's folder is written (default: outputs)")
    many.add_argument("--workers", type=int, help="processes on this machine (default: one a GPU, or one a core)")
    many.add_argument("--scheduler", help="address of a running Dask cluster that sees the same folders")
    check = commands.add_parser("verify", help="say whether a run's files are still those that its run.json speaks of")
    check.add_argument("folder", type=Path, help="a run's folder, or a sweep's")
    args = parser.parse_args(words)
    try:
        return {"run": _run, "fetch": _fetch, "sweep": _sweep, "verify": _verify}[args.command](args) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what was done is kept, and the same command goes on", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> None:
    folder = run_notebooks(args.profile, args.run or args.profile, _given(args), args.seed, args.outputs, args.again)
    print(f"report: {write_report(folder)}")


def _fetch(args: argparse.Namespace) -> None:
    rows = choose(read_manifest(), args.patients, args.series_file)
    print(
        f"{len(rows)} series of {rows['patient'].nunique()} patients, {rows['bytes'].sum() / 1e9:.2f} GB, licence {rows['licence'].iloc[0]}"
    )
    with tqdm(total=int(rows["bytes"].sum()), unit="B", unit_scale=True, desc="LIDC-IDRI") as bar:
        fetch(rows, args.to, args.endpoint_url, lambda done, total: bar.update(done - bar.n))
    print(f"all {rows['slices'].sum()} slices are in {args.to}: python -m lpdirs run --profile paper --data {args.to}")


def _sweep(args: argparse.Namespace) -> None:
    grid = Grid.read(args.grid, {k: v for k, v in _given(args).items() if k != "scheduler"})
    folder = sweep(grid, args.outputs, args.workers, args.scheduler)
    run_notebook("07_compare_runs", grid.profile, folder, {}, grid.seeds[0])
    print(f"compared in: {folder / 'notebooks' / '07_compare_runs.ipynb'}")


def _verify(args: argparse.Namespace) -> int:
    lines = verify(args.folder)
    print("\n".join(str(line) for line in lines))
    return int(any(line.broken for line in lines))


def _given(args: argparse.Namespace) -> dict:
    given = {}
    for word in args.set:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"--set takes NAME=VALUE, not {word!r}")
        given[name] = yaml.safe_load(value)
    if args.data is not None:
        if not args.data.is_dir():
            raise UserError(f"data folder {args.data} does not exist: give the folder that holds your DICOM files")
        given["data_dir"] = str(args.data.resolve())
    if args.scheduler is not None:
        given["scheduler"] = args.scheduler
    return given
