"""The command `resnet`."""

import io
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from resnetkit.cli import benchmark, convert, data, evaluate, export, inspect, lab, models, predict, report, train, tune
from resnetkit.cores import follow_quota
from resnetkit.errors import ResnetkitError, refused

app = typer.Typer(
    help="Residual networks: build any of them, train one on your images, know how good it is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
VERBS = (
    *(train.train, tune.tune, evaluate.evaluate, predict.predict, inspect.inspect),
    *(convert.convert, export.export, report.report, models.models, benchmark.benchmark),
)
for verb in VERBS:
    app.command()(verb)


def _print_version(asked: bool) -> None:
    if asked:
        print(version("resnetkit"))
        raise typer.Exit


VersionFlag = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
]


@app.callback()
def options(number: VersionFlag = False) -> None:
    """Those of `resnet` itself."""


app.add_typer(data.app, name="data")
app.add_typer(lab.app, name="lab")


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and the exit code of its kind."""
    follow_quota()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names that are not UTF-8 keep their bytes
    try:
        app()
    except ResnetkitError as error:
        _fail(error)
    except OSError as error:
        _fail(refused(error.filename or "the system", error))


def _fail(error: ResnetkitError) -> NoReturn:
    print(f"resnet: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
