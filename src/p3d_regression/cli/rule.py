"""``p3d-regression rule``."""

import click


@click.command(short_help="Explain a rule of `check`; without a code, list them.")
@click.argument("code", required=False)
def rule(code: str | None) -> None:
    """Explain a rule: what it finds, why it matters, and what to write instead."""
    from p3d_regression.checks import docs, registry

    if code is None:
        for known in registry.rules():
            click.echo(f"{known.code}  {known.severity:<8}  {known.name}")
        return
    try:
        found = registry.select([code], [])
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo("\n\n".join(docs.explain(known) for known in found))
