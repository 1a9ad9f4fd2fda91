"""``p3d-regression schema``: a JSON Schema of configs, for editors."""

import json

import click


@click.command(short_help="Print a JSON Schema of the configs, for editors.")
def schema() -> None:
    """Print a JSON Schema (2020-12) of training and prediction configs, as the installed versions read them.

    With a file of it, an editor completes keys, explains them and marks misspelled ones. Write its path into the first
    line of a config:

    \b
        p3d-regression schema > p3d.schema.json
        # yaml-language-server: $schema=p3d.schema.json
    """
    from p3d_regression.schema.build import schema as build

    click.echo(json.dumps(build(), indent=1, allow_nan=False))
