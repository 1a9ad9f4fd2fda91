"""Whatever a config says after ``final_activation:``, it builds or it is a ``ConfigError``."""

import contextlib
import sys

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from p3d_regression import ConfigError
from p3d_regression.activations.registry import registry, resolve
from p3d_regression.activations.spec import KEY

NAMES = [
    name for registration in registry().registrations() for name in (registration.what.name, *registration.what.aliases)
]
ARGUMENTS = [
    "name",
    *{parameter for registration in registry().registrations() for parameter in registration.what.parameters},
]
HOSTILE = [
    "os.system",
    "__import__('os')",
    "!!python/object:os.system",
    "torch.nn.ReLU",
    "../x",
    "a" * 300,
    "\ud800",
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(),
    st.dates(),
    st.binary(),
    st.sampled_from(HOSTILE),
)
names = st.one_of(st.sampled_from(NAMES), st.sampled_from(HOSTILE), st.text(), scalars)
small = st.one_of(st.integers(-100, 100), st.floats(-100, 100), scalars)
mappings = st.builds(
    lambda name, arguments: {"name": name, **arguments},
    names,
    st.dictionaries(st.sampled_from(ARGUMENTS[1:]), small, max_size=3),
)
entries = st.one_of(names, mappings, st.dictionaries(scalars, scalars, max_size=3))
nested = st.recursive(
    entries, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2), max_leaves=30
)
values = st.one_of(entries, st.lists(entries, min_size=1, max_size=4), nested)


@settings(max_examples=2000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(value=values, channels=st.integers(1, 4))
@example(value={"name": "bounded", "low": -1e308, "high": 1e308}, channels=1)
@example(value={"name": "hardtanh", "min_val": -1e300, "max_val": 1e300}, channels=1)
@example(value={"name": "softplus", "beta": 5e-324}, channels=1)
@example(value=eval("[" * 90 + "]" * 90), channels=1)
def test_it_builds_or_is_a_config_error_with_a_fix_that_works(value: object, channels: int) -> None:
    before = set(sys.modules)
    while error := error_of(value, channels):
        assert len(str(error)) < 2000
        # one error after the other, and in the end there is none
        value, before_fix = error.found.fix.applied_to({"model": {KEY: value}})["model"][KEY], value
        assert repr(value) != repr(before_fix)
    final = resolve(value, channels)
    assert len(final.ranges) == channels
    assert resolve(final.plain, channels).plain == final.plain
    assert final.describe()
    assert set(sys.modules) == before


def error_of(value: object, channels: int) -> ConfigError | None:
    try:
        resolve(value, channels).build()
    except ConfigError as error:
        return error
    return None


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(text=st.one_of(st.text(max_size=40), st.from_regex(r"\{name: [a-z]{1,8}, [a-z]{1,5}: [0-9eE.+-]{1,6}\}")))
def test_whatever_yaml_makes_of_a_line(text: str) -> None:
    try:
        config = yaml.safe_load(f"final_activation: {text}")
    except (yaml.YAMLError, ValueError):
        return
    if isinstance(config, dict):
        with contextlib.suppress(ConfigError):
            resolve(config.get("final_activation"), 1).build()


def test_the_fuzzing_reaches_both_outcomes() -> None:
    """So that the tests above are not passed by a grammar that refuses everything."""
    outcomes = {True: 0, False: 0}

    @settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(value=values, channels=st.integers(1, 4))
    def count(value: object, channels: int) -> None:
        try:
            resolve(value, channels).build()
            outcomes[True] += 1
        except ConfigError:
            outcomes[False] += 1

    count()
    assert min(outcomes.values()) > 20, outcomes
