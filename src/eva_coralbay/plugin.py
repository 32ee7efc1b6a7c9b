"""What Lightning calls, by an entry point, whenever a trainer is built in this environment."""

import sys

from eva_coralbay import _progress, errors


def callbacks_factory() -> list:
    """Prepares a program that uses eva's vision models for our backbones and errors.

    It makes our backbones known to eva, lets an error of :data:`errors.SHOWN_ALONE` that ends the
    program print its message alone, and lets progress bars be drawn. eva has no hook of its own
    for plugins, but it looks a backbone up only after the trainer is built. A program that has
    nothing to do with eva pays for no import.

    Returns:
        An empty list: there is no callback to add.
    """
    if "eva.vision" in sys.modules:
        from eva_coralbay.models import registry

        registry.register_backbones()
        errors.show_messages_alone()
        _progress.show()
    return []
