"""Puts a quick stand-in in the place of a site's condensation, in every process of a test's engine.

What a site does stands in its `behaviour.json`: seconds to take, an error to raise.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types


def contribute(site, study, request, *, mode, watch):
    import numpy as np

    from fedcondense.errors import DataError
    from fedcondense.exchange.contribution import Provenance, SyntheticArrays, encode_payload
    from fedcondense.exchange.keys import SigningKey
    from fedcondense.exchange.sealing import seal
    from fedcondense.privacy.release import decide_release
    from fedcondense.progress import Step

    behaviour = json.loads((site.state / "behaviour.json").read_text())
    with (site.state / "starts.log").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    watch(Step("condensing", 1, 2, {"loss": 0.5}))
    time.sleep(behaviour["seconds"])
    if behaviour["raises"] == "DataError":
        raise DataError("the images of Jane Doe cannot be used", hint="ask Jane Doe")
    if behaviour["raises"] == "ValueError":
        raise ValueError("Jane Doe")
    cache = site.state / "contribution.sealed"
    if not cache.exists():
        count, side = study.largest_set, study.image.size
        noise = np.random.default_rng(site.seed).normal(size=(count, study.image.channels, side, side))
        labels = np.arange(count, dtype=np.uint8) % len(study.classes)
        arrays = SyntheticArrays(noise.astype(np.float32), labels)
        released = decide_release(
            encode_payload(arrays, Provenance.of(study, ()), study), study=study, mode=mode
        )
        key = SigningKey.load(site.state / "keys" / "signing.key")
        cache.write_bytes(seal(released, request, site.name, study, key))
    return cache.read_bytes()


stand_in = types.ModuleType("fedcondense.site.contribute")
stand_in.contribute = contribute
sys.modules[stand_in.__name__] = stand_in
