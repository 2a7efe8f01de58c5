"""Predicts the classes of recordings or images, with probabilities:

    meljax predict RUN PATH... [--windows | --merge] [--min-probability P] [--thresholds FILE]
        [--format FORMAT] [--out FILE] [--summary FILE] [--top K] [--digits N]

Writes a row per file: path, start, end, label, probability, status, error. start and end delimit
the scored part, in seconds of a recording or columns of an image; they are empty for resized
images, which are scored whole. A file shorter than one and a half windows is scored on one window
in its middle. A longer file is scored on overlapping windows from start to end, and its
probabilities are the mean over its windows that are not silent. With --windows, each window has a
row; with --merge, successive windows of the same class share a row with their mean probability. If
file names hold the time of recording (20240517_043000.WAV), the column time is that of the start.

The status is ok, unknown (less probable than --min-probability or a threshold), background (the
class data.background of the run), silence (nothing to score) or error; only ok has a label. For an
unusable file, the column error holds the reason; the other files are still scored, and the exit
code is 1. The weights are those of the run's best epoch.

FORMAT is table, csv, jsonl, parquet, raven (a Raven selection table) or audacity (a label track;
for several recordings, --out is a folder with a track per recording). See docs/predict.md.
"""

import argparse
from collections.abc import Sequence

from meljax.outputs.formats import FORMATS
from meljax.util import console
from meljax.util.console import Parser, path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (1: there were unusable files)."""
    parser = Parser(__doc__)
    parser.add_argument("run", metavar="RUN", type=path, help="directory of a run")
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="a file, or a folder with its sub-folders"
    )
    _add_rows(parser)
    _add_output(parser)

    def run(_: console.StopRequest) -> int:
        arguments = parser.parse(argv)
        from meljax.workflows.predict import predict

        unusable = predict(
            arguments.run,
            arguments.paths,
            top=arguments.top,
            by_window=arguments.windows,
            merge=arguments.merge,
            min_probability=arguments.min_probability,
            thresholds=arguments.thresholds,
            form=arguments.format,
            out=arguments.out,
            digits=arguments.digits,
            summary=arguments.summary,
        )
        return 1 if unusable else 0

    return console.run(run)


def _add_rows(parser: argparse.ArgumentParser) -> None:
    """Adds the options that decide which rows there are."""
    parser.add_argument("--windows", action="store_true", help="a row for each window")
    parser.add_argument(
        "--merge", action="store_true", help="a row for successive windows of the same class"
    )
    parser.add_argument(
        "--min-probability",
        metavar="P",
        type=float,
        default=0.0,
        help="rows with a lower probability have the status unknown",
    )
    thresholds_help = (
        "minimum probabilities by class: a CSV with the columns class and threshold, or "
        "precision=0.95 for the lowest thresholds with this precision on the validation files"
    )
    parser.add_argument("--thresholds", metavar="FILE", help=thresholds_help)
    top_help = "number of classes per row, in columns label_2, probability_2, … (default: 1)"
    parser.add_argument("--top", metavar="K", type=int, default=1, help=top_help)


def _add_output(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the files to write."""
    parser.add_argument(
        "--format", choices=FORMATS, help="default: by the suffix of --out, else table"
    )
    parser.add_argument("--out", metavar="FILE", type=path, help="default: standard output")
    summary_help = "write the number of rows per hour and class, or per file and class, as CSV"
    parser.add_argument("--summary", metavar="FILE", type=path, help=summary_help)
    digits_help = (
        "decimals of numbers, 1 to 17; 17: all (default: 4 in CSV, all in JSON lines and Parquet)"
    )
    parser.add_argument("--digits", metavar="N", type=int, help=digits_help)
