"""A Dask cluster on Slurm for `python -m lpdirs sweep`: one job a GPU, ended when this script ends.

    pip install dask-jobqueue
    python notebooks/cluster/slurm.py --jobs 4 --partition gpu > scheduler.txt &
    python -m lpdirs sweep notebooks/profiles/grid_paper.yaml --data /shared/lidc --scheduler $(cat scheduler.txt)

Checkout, environment, data and outputs must lie on a disk that the nodes share, under the same path. The numbers below are to be
adapted to your site: `--print` shows the job script without submitting it.
"""

import argparse
import sys
import time

from dask_jobqueue import SLURMCluster


def cluster(partition: str, hours: int = 24, gpus: int = 1, cores: int = 4, memory: str = "32GB") -> SLURMCluster:
    """A cluster of which nothing is submitted yet; each job is one worker that does one notebook at a time."""
    return SLURMCluster(
        queue=partition,
        cores=1,  # of Dask: one notebook at a time
        processes=1,
        job_cpu=cores,  # of Slurm: the grid's `threads`
        memory=memory,
        walltime=f"{hours}:00:00",
        job_extra_directives=[f"--gres=gpu:{gpus}"] if gpus else [],
        python=sys.executable,
        worker_extra_args=["--no-dashboard"],
        scheduler_options={"dashboard": False, "dashboard_address": ":0"},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--partition", required=True)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--gpus", type=int, default=1, help="of each job; 0 for CPU nodes")
    parser.add_argument("--print", action="store_true", help="show the job script and end")
    args = parser.parse_args()
    with cluster(args.partition, args.hours, args.gpus) as many:
        if args.print:
            print(many.job_script())
            return
        many.scale(jobs=args.jobs)
        print(many.scheduler_address, flush=True)
        while True:  # Ctrl-C, or kill, ends the jobs
            time.sleep(60)


if __name__ == "__main__":
    main()
