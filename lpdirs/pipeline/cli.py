"""python -m lpdirs."""

import argparse
import sys
from pathlib import Path

import yaml

from lpdirs.errors import UserError
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
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--outputs", default="outputs", help="where runs are written (default: outputs)")
    run.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings in place of the profile's")
    run.add_argument("--again", action="store_true", help="run notebooks again that are done; trained models are kept")
    args = parser.parse_args(words)
    try:
        folder = run_notebooks(args.profile, args.run or args.profile, _given(args), args.seed, args.outputs, args.again)
        print(f"report: {write_report(folder)}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


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
    return given
