"""The `lake` command: its verbs, and the map from errors to exit codes."""

from __future__ import annotations

import inspect
import json
import os
import sys
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from lake.cli.session import InterruptedByUserError, ReaderLeftError, global_parameters
from lake.cli.signals import ending_signals
from lake.cli.verbs import Verbs
from lake.errors import (
    CommitConflictError,
    DamagedError,
    LakeError,
    QualityError,
    SourceError,
    StorageError,
    UsageError,
)
from lake.text import escape_unseen

BUG, USAGE, FINDINGS, UNAVAILABLE, CONFLICT, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 4, 5, 130, 141
EXIT_CODES: dict[type[LakeError], int] = {
    UsageError: USAGE,
    StorageError: USAGE,
    DamagedError: FINDINGS,
    QualityError: FINDINGS,
    SourceError: UNAVAILABLE,
    CommitConflictError: CONFLICT,
}

app = typer.Typer(
    name="lake",
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 a bug, 2 usage or environment, 3 findings or damaged data, "
    "4 source unavailable or refusing, 5 commit conflict, 130 interrupted (SIGTERM: 143, SIGHUP: "
    "129), 141 broken pipe.",
)


def _root(context: typer.Context, **options: Any) -> None:
    """A market data lakehouse for crypto trading: data that a backtest can trust."""
    context.obj = options


def _print_version(wanted: bool) -> None:
    if wanted:
        from lake.version import VERSION

        sys.stdout.write(f"lake {VERSION}\n")
        raise typer.Exit


def _root_signature() -> inspect.Signature:
    keyword = inspect.Parameter.KEYWORD_ONLY
    version = Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ]
    return inspect.Signature(
        [
            inspect.Parameter("context", keyword, annotation=typer.Context),
            inspect.Parameter("version", keyword, annotation=version, default=False),
            *global_parameters(),
        ]
    )


_root.__signature__ = _root_signature()  # type: ignore[attr-defined]
_root.__annotations__ = {n: p.annotation for n, p in _root_signature().parameters.items()}
app.callback()(_root)


def main() -> None:
    """Run the command line and exit with one of the exit codes above."""
    with ending_signals() as signals:
        code = run(sys.argv[1:])
    sys.exit(signals.exit_code if code == INTERRUPTED and signals.exit_code else code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = app(args=arguments, standalone_mode=False)
        sys.stdout.flush()
    except LakeError as error:
        _print_error(arguments, error.code, error.message, error.hint)
        return exit_code(error)
    except TyperException as error:
        if not error.format_message():
            return USAGE  # a bare `lake` or `lake bundle`: its help is printed already
        _print_error(arguments, "usage", error.format_message(), _help_hint(error))
        return USAGE
    except (InterruptedByUserError, KeyboardInterrupt, typer.Abort):
        _print_error(
            arguments, "interrupted", "interrupted", "The same command continues from here."
        )
        return INTERRUPTED
    except ReaderLeftError:
        # The reader has left; Python would complain of it again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last handler: whatever no command expects
        return _report_unexpected(arguments, error)
    return code if isinstance(code, int) else 0


def exit_code(error: LakeError) -> int:
    """Return the exit code of an error: that of its nearest class in the map."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def _print_error(arguments: list[str], code: str, message: str, hint: str) -> None:
    if _wants_json(arguments):
        text = json.dumps({"code": code, "message": message, "hint": hint}, ensure_ascii=False)
    else:
        text = escape_unseen(f"error: {message}" + (f"\n{hint}" if hint else ""), keep="\n\t")
    sys.stderr.write(text + "\n")


def _report_unexpected(arguments: list[str], error: Exception) -> int:
    from lake.cli.unexpected import describe
    from lake.store.faults import explain_os_error, find_reason

    if find_reason(error) is not None and isinstance(error, OSError):
        known = explain_os_error(error, "storage")
        _print_error(arguments, known.code, known.message, known.hint)
        return exit_code(known)
    verbose = not {"-v", "--verbose"}.isdisjoint(arguments)
    _print_error(arguments, "bug", *describe(error, verbose=verbose))
    return BUG


def _wants_json(arguments: list[str]) -> bool:
    joined = " ".join(arguments)
    formats = ("-o json", "-o ndjson", "--format json", "--format=json", "--format ndjson")
    return "--json" in arguments or any(text in joined for text in formats)


def _help_hint(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"See `{context.command_path} --help`." if context else "See `lake --help`."


if __name__ == "__main__":
    main()
