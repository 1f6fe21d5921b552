"""The console entry: parse, run, and turn every deliberate error into one message and its exit code."""

from __future__ import annotations

import shlex
import sys

from tunesmith.errors import Interrupted, OutOfSpace, TunesmithError, is_out_of_space

__all__ = ["main"]

_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit."""
    from tunesmith.cli import app

    try:
        app(prog_name="tunesmith", standalone_mode=True)
    except Interrupted as error:
        print(f"{error}\n  {shlex.join(['tunesmith', *sys.argv[1:]])}", file=sys.stderr)
        sys.exit(error.exit_code)
    except TunesmithError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if not is_out_of_space(error):
            raise
        where = "no space left where the workspace lies. Free some, or choose another with --workspace"
        _fail(OutOfSpace(f"{where}; the same command then goes on"))


def _fail(error: TunesmithError) -> None:
    told = str(error)
    if not told.replace("\n", "").isprintable():  # a message may show what stands in a file, which no terminal must obey
        from tunesmith.terminal.layout import printable

        told = printable(told)
    print(told, file=sys.stderr)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
