"""`tunemill diff`: whether two evaluated models differ by more than noise, and on which rows."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.options import (
    add_command,
    add_json,
    add_state,
    count_of,
    print_json,
    store_of,
)
from tunemill.resources.errors import StoreError

if TYPE_CHECKING:
    from tunemill.pipelines.report.difference import Difference

NOTHING_COMPARABLE = 2
# Of the rows that got better, and of those that got worse.
SHOWN, SHOWN_IN_HTML = 5, 200


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "diff", diff, text)
    parser.add_argument(
        "what",
        nargs="+",
        metavar="EVALUATION",
        help="two of: PIPELINE/NODE, PIPELINE/NODE@KEY (an older artifact of it), a folder; or PIPELINE.YML NODE NODE. "
        "A model stands for its evaluation",
    )
    parser.add_argument("--metric", metavar="NAME", help="only this metric, and the rows that moved by it")
    parser.add_argument(
        "--limit",
        type=count_of("rows"),
        metavar="N",
        help=f"show so many rows of each kind (default: {SHOWN})",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page for a browser")
    add_state(parser)
    add_json(parser)


def diff(options: argparse.Namespace) -> int:
    """Compare two evaluations; 2 where nothing can be compared, else 0, whatever differs."""
    from tunemill.pipelines.commands.find_evaluation import find_evaluations
    from tunemill.pipelines.report.difference import NothingComparableError, compare_evaluations

    found = find_evaluations(options.what, store_of(options, looks=True))
    if len(found) != 2:
        raise StoreError(
            f"name two evaluations, such as `tunemill diff quickstart/base quickstart/merged`; here {len(found)} "
            f"{'is' if len(found) == 1 else 'are'} named"
        )
    try:
        difference = compare_evaluations(found[0], found[1], options.metric)
    except NothingComparableError as error:
        print(error, file=sys.stderr)
        if options.json:
            print_json({"error": str(error), "problems": []})
        return NOTHING_COMPARABLE
    if options.html is not None:
        from tunemill.pipelines.commands.diff_html import page

        limit = SHOWN_IN_HTML if options.limit is None else options.limit
        options.html.write_text(page(difference, limit), encoding="utf-8")
    if options.json:
        print_json(as_json(difference, options.limit))
        return 0
    from tunemill.pipelines.commands.diff_text import show_difference

    show_difference(difference, SHOWN if options.limit is None else options.limit)
    if options.html is not None:
        print(f"the page: {options.html}")
    return 0


def as_json(difference: "Difference", limit: int | None) -> dict[str, Any]:
    """The one document of --json; of the rows that moved the first `limit`, or all."""
    pairs = difference.pairs
    return {
        "one": difference.one.as_json(),
        "other": difference.other.as_json(),
        "rows": len(pairs.rows),
        "only_in_one": pairs.only_one,
        "only_in_other": pairs.only_other,
        "paired_by": pairs.by,
        "metrics": {
            item.metric: {**item.comparison.as_json(), "better": item.better, "words": item.words}
            for item in difference.metrics
        },
        "moved_by": difference.main.metric,
        "better_rows": len(difference.better),
        "worse_rows": len(difference.worse),
        "better": [{"one": dict(one), "other": dict(other)} for one, other in difference.better[:limit]],
        "worse": [{"one": dict(one), "other": dict(other)} for one, other in difference.worse[:limit]],
    }
