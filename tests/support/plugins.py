"""Plugins of this plugin, written by a test."""

import textwrap
from pathlib import Path


def write_plugin(site: Path, name: str, source: str) -> None:
    """Install a package with one module by hand: the files that pip would write."""
    (site / f"{name}.py").write_text(textwrap.dedent(source))
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[p3d_regression]\n{name} = {name}\n")
