"""What the documents tell people to write is valid."""

import re
from pathlib import Path

import pytest
import yaml

from p3d_regression.activations.registry import registry, resolve
from support.environments import ROOT

PAGES = ["README.md", "docs/final-activation.md"]


def documented(page: str) -> list[str]:
    """Every value that a page puts behind the key, and in the first table of the page on activations."""
    text = (ROOT / page).read_text()
    values = re.findall(r"(?<!model\.)final_activation: ((?:\[[^]\n]*\]|\{[^}\n]*\}|[\w-]+))", text)
    rows = re.search(r"\| your labels are .*?\n\n", text, re.DOTALL)
    if rows:
        values += [row.split("|")[2].strip(" `") for row in rows[0].strip().splitlines()[2:]]
    return values


@pytest.mark.parametrize("page", PAGES)
def test_every_value_can_be_built(page: str) -> None:
    values = documented(page)
    assert len(values) >= 5
    for text in values:
        value = yaml.safe_load(text)
        resolve(value, len(value) if isinstance(value, list) else 2).build()


def test_the_page_names_the_projects_own() -> None:
    text = Path(ROOT / "docs/final-activation.md").read_text()
    for offer in registry().offers():
        if offer.origin == "built-in":
            assert f"`{offer.what.name}`" in text or f"{{name: {offer.what.name}" in text


def test_every_example_in_a_table_has_the_range_that_the_page_claims() -> None:
    text = Path(ROOT / "docs/final-activation.md").read_text()
    claims = re.findall(r"`([^`]+)`\s+is `(\[[^`]+[\])])`", text)
    assert len(claims) == 2
    for value, claimed in claims:
        (interval,) = resolve(yaml.safe_load(value), 1).ranges
        low, high = (float(bound) for bound in claimed.strip("[])").split(","))
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-3)
