"""python -m lpdirs."""

import argparse
import sys
from pathlib import Path

import yaml
from tqdm import tqdm

from lpdirs.analysis.comparison import in_words, over_seeds
from lpdirs.data.lidc import choose, fetch, read_manifest
from lpdirs.errors import UserError
from lpdirs.pipeline.compare import compare
from lpdirs.pipeline.notebooks import run_notebooks
from lpdirs.pipeline.report import write_report


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
    scores = commands.add_parser("compare", help="score every way of finding directions on the generators of some runs")
    scores.add_argument("runs", nargs="+", help="names of runs that are done; of different seeds, for intervals over seeds")
    scores.add_argument("--methods", nargs="+", help="some methods (default: all)")
    scores.add_argument("--outputs", type=Path, help="where runs lie (default: outputs)")
    scores.add_argument("--to", type=Path, help="also write the rows of all runs to this CSV")
    scores.add_argument("--samples", type=int, default=64, help="starting slices for each direction (default: 64)")
    scores.add_argument("--scheduler", help="address of a running Dask cluster (default: a process a core)")
    args = parser.parse_args(words)
    try:
        {"run": _run, "fetch": _fetch, "compare": _compare}[args.command](args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


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


def _compare(args: argparse.Namespace) -> None:
    rows = compare(args.runs, args.methods, args.outputs, args.samples, scheduler=args.scheduler)
    if args.to is not None:
        rows.to_csv(args.to, index=False, float_format="%.5g")
    table = in_words(over_seeds(rows, ["found", "selectivity", "kappa", "mig", "dci_disentanglement"]))
    print(f"\n{len(args.runs)} runs: mean ± half of the 95 percent interval over them\n{table.to_string()}")


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
