"""Errors that a user can cause end in one message and a non-zero exit, without a traceback."""

import gc
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right.

    The message says what is wrong, where (file, key, row, column), what was expected, what was found and what to do.
    """


def run_stage(main: Callable[[], None]) -> None:
    """Runs a stage's `main`; a UserError or OSError (disk full, no permission) ends in its message and exit code 1."""
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except MemoryError:
        sys.exit("error: there is not enough memory; ask for fewer rows in params.yaml, or take a smaller CSV")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # the process ends: a last collection would only look through all modules again
