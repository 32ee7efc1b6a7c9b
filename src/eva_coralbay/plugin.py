"""What Lightning calls, by an entry point, whenever a trainer is built in this environment."""

import sys


def callbacks_factory() -> list:
    """Makes our backbones known to eva if the program uses its vision models.

    eva has no hook of its own for plugins, but looks a backbone up only after the trainer is
    built. A program that has nothing to do with eva pays for no import.

    Returns:
        An empty list: there is no callback to add.
    """
    if "eva.vision" in sys.modules:
        from eva_coralbay.models import registry

        registry.register_backbones()
    return []
