"""The command line. Data go to stdout, talk and progress to stderr.

Exit codes: 0 done, 1 something broke (a training left the finite numbers, a job failed), 2 wrong usage or
an impossible request, 3 not found, 4 refused (conflict, no permission, too large, not a valid ticket ...),
5 the service was not reached or cannot answer now, 6 the verdict asked for was not reached, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code; an error is one line on stderr."""
    from nirvana.cli.app import app
    from nirvana.cli.output import report_error
    from nirvana.errors import NirvanaError, StorageFailed

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=words, prog_name="nirvana")
    except NirvanaError as error:
        sys.exit(report_error(error, as_json="--json" in words))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:  # a folder that cannot be made, a home that is not ours
        sys.exit(report_error(StorageFailed(str(error)), as_json="--json" in words))
    except KeyboardInterrupt:
        sys.exit(130)
