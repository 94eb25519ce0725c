"""Puts the kit's stand-in in the place of a site's condensation, in all processes of an engine."""

from __future__ import annotations

import sys
import types


def contribute(*args: object, **kwargs: object) -> bytes:
    from federation_kit import stand_in

    return stand_in(*args, **kwargs)


module = types.ModuleType("fedcondense.site.contribute")
module.contribute = contribute
sys.modules[module.__name__] = module
