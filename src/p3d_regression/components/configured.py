"""A component as a config names it: looked up, with all its arguments."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

from p3d_regression.components.component import C
from p3d_regression.components.parameters import Argument, with_arguments
from p3d_regression.errors import ConfigError
from p3d_regression.fix import advise
from p3d_regression.text import as_yaml, shortened


@dataclass(frozen=True)
class Configured(Generic[C]):
    """An activation, a loss or a metric with all its arguments.

    Attributes:
        component: what the config names.
        arguments: all that a config may give, including those at their defaults.
        place: where the config names it, such as ``loss.channels[1]``.
        plugin: distribution, with version, of the plugin it comes from; None for a component of torch, torchmetrics,
            pytorch-3dunet or this project.
    """

    component: C
    arguments: Mapping[str, Any]
    place: str
    plugin: str | None = None

    @property
    def plain(self) -> str | dict[str, Argument]:
        """As plain data, with every argument."""
        return with_arguments(self.component.name, self.arguments)

    @property
    def short(self) -> str | dict[str, Argument]:
        """The same without the arguments at their defaults."""
        return with_arguments(self.component.name, self.component.given(self.arguments))

    def __str__(self) -> str:
        """As a config says it, in one line."""
        return shortened(as_yaml(self.short))

    @contextmanager
    def trial(self, what: str = "") -> Iterator[None]:
        """Build or compute it: any error becomes a :class:`ConfigError`, and the random seed stays as it was.

        Args:
            what: is tried, if it is not the component as a whole, such as ``of patches of 8 x 8 x 8 voxels``.

        Raises:
            ConfigError: it cannot be computed with its arguments.
        """
        import torch

        try:
            with torch.random.fork_rng(devices=[]):
                yield
        except ConfigError:
            raise
        except Exception as error:
            # some of torch's checks are asserts without a message: their source line says most
            reason = str(error) or traceback.extract_tb(error.__traceback__)[-1].line or type(error).__name__
            why = f"cannot be computed{what and f' {what}'}: {reason[:500].rstrip('.')}"
            # a traceback helps the author of a plugin, not the author of a config
            raise self.refusal(why) from (error if self.plugin else None)

    def refusal(self, why: str) -> ConfigError:
        """The error for arguments that are each valid and do not work together.

        Args:
            why: the rest of the sentence that begins with the component.
        """
        component, given = self.component, self.component.given(self.arguments)
        # object(): none of these values can be kept
        others = component.as_far_as_usable(dict.fromkeys(given, object()))
        if others == given:
            fix = advise(f"write another {component.noun}; `p3d-regression {component.command}` lists all")
            return ConfigError(self.place, f"{self} {why}.", fix)
        return ConfigError(self.place, f"{self} {why}. {component.usage}", component.written(self.place, others, given))
