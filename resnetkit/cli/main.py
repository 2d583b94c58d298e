"""The command `resnet`."""

import sys

import typer

from resnetkit.cli import evaluate, inspect, models, predict, train
from resnetkit.errors import ResnetkitError

app = typer.Typer(
    help="Residual networks: build any of them, train one on your images, know how good it is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for verb in (train.train, evaluate.evaluate, predict.predict, inspect.inspect, models.models):
    app.command()(verb)


def main() -> None:
    """Run the command; a user's mistake is one line on standard error and the exit code of its kind."""
    try:
        app()
    except ResnetkitError as error:
        print(f"resnet: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
