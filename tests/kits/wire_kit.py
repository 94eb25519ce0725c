"""A second implementation of the contribution format, for tests: it can also write what is wrong.

Nothing here uses the package's own writer, so that writer and reader cannot agree on an error.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from fedcondense.config.loading import parse_settings
from fedcondense.config.privacy import Declared, FormalPrivacy, Unit
from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.site import ReleasePolicy
from fedcondense.config.study import Study
from fedcondense.exchange.approval import Approval, approve
from fedcondense.exchange.contribution import (
    Payload,
    Provenance,
    Released,
    SyntheticArrays,
    encode_payload,
)
from fedcondense.exchange.guarantee import Account, Attacker, ChargedRow, Guarantee
from fedcondense.exchange.keys import OpeningKey, SigningKey
from fedcondense.exchange.release_record import Facts
from fedcondense.exchange.run_description import Request, RunDescription
from fedcondense.exchange.sealing import Expectation, seal
from fedcondense.exchange.terms import terms_of
from fedcondense.privacy.accounting import Spent
from fedcondense.privacy.chain import Row, State
from fedcondense.privacy.findings import AuditResult, Audits, Verdict
from fedcondense.privacy.receipt import Paid
from fedcondense.privacy.release import Evidence, decide_release

HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
RUN = "0123456789abcdef" * 2


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def small_study(**changes: Any) -> Study:
    """Two classes of 16 x 16 pixels, three images each, quorum 2."""
    values = {
        "name": "small",
        "classes": ["normal", "pneumonia"],
        "image": {"size": 16},
        "network": {"depth": 2},
        "images_per_class": 3,
        "distill": {"method": "idm"},
        "quorum": 2,
    }
    return parse_settings(Study, values | changes, "study.toml")


def learning_study(**changes: Any) -> Study:
    """The small study by a method that also learns a step size and soft labels."""
    learned = {"method": "mtt", "label_rate": 1.0, **changes.pop("distill", {})}
    return small_study(distill=learned, **changes)


def private_study(**changes: Any) -> Study:
    """The small study under differential privacy, mode dp-embed."""
    asked = {"mode": "dp-embed", "epsilon": 8.0, "unit": "patient", **changes.pop("privacy", {})}
    return small_study(privacy=asked, **changes)


def arrays_of(study: Study, labels: tuple[int, ...], seed: int = 0) -> SyntheticArrays:
    shape = (len(labels), study.image.channels, study.image.size, study.image.size)
    random = np.random.default_rng(seed)
    images = random.normal(size=shape).astype(np.float32)
    rows = random.dirichlet(np.ones(len(study.classes)), len(labels)).astype(np.float32)
    soft = rows if study.distill.soft_labels else None
    rate = float(random.uniform(0.01, 0.03)) if study.distill.learns_rate else None
    return SyntheticArrays(images, np.array(labels, np.uint8), soft, rate)


def payload_of(study: Study, labels: tuple[int, ...] = (0, 0, 1), seed: int = 0) -> Payload:
    absent = tuple(name for label, name in enumerate(study.classes) if label not in labels)
    return encode_payload(arrays_of(study, labels, seed), Provenance.of(study, absent), study)


def audited(payload: Payload, **verdicts: str) -> Audits:
    """Audits of `payload`: memorisation passed, membership was not run, unless said otherwise."""
    said = {"memorisation": "passed", "membership": "not-run"} | verdicts
    results = [AuditResult(name, Verdict(word), (), 1.0, "") for name, word in said.items()]
    return Audits(payload.sha256, "quick", tuple(results))


HEAD = "0123456789abcdef" * 4
DECLARED = Declared(images=5_000, patients=4_000)


def row_of(study: Study, /, round: int = 1, **changes: Any) -> Row:
    """The row of one access: without noise, or one full batch at epsilon 8."""
    privacy = study.privacy
    values = {
        "state": State.UNBOUNDED,
        "mechanism": "images",
        "mode": privacy.mode,
        "study": study.digest,
        "round": round,
        "data_digest": "d" * 64,
        "seq": 1,
        "time": "2026-11-21T08:00:00+00:00",
        "versions": {"fedcondense": "0.1.0", "opacus": "1.6.0"},
        "previous_row_digest": "0" * 64,
    }
    if isinstance(privacy, FormalPrivacy):
        name = "class-embeddings" if privacy.mode == "dp-embed" else "experts"
        charged = {"state": State.CHARGED, "mechanism": name, "sigma": 0.601, "unit": privacy.unit}
        values |= charged
    return Row.model_validate(values | changes)


def paid_for(study: Study, /, round: int = 1, **changes: Any) -> Paid:
    """What the ledger answers for one access; the sums are what its accountant would say."""
    formal = isinstance(study.privacy, FormalPrivacy)
    unbounded = Spent(math.inf, 1e-5, "none")
    paid = Paid(
        rows=(row_of(study, round),),
        spent=Spent(7.99613, 1e-5, "prv") if formal else unbounded,
        cumulative=Spent(9.25, 1e-5, "prv") if formal else unbounded,
        cumulative_unit=study.privacy.unit if formal else Unit.IMAGE,
        head=HEAD,
        mode=study.privacy.mode,
        unit=study.privacy.unit if formal else None,
    )
    return replace(paid, **changes)


def decided(
    payload: Payload, study: Study, mode: ReleaseMode = ReleaseMode.ENFORCED, **how: Any
) -> Released:
    """The gate's decision on a set whose audits passed and whose rows are paid."""
    evidence = {
        "policy": ReleasePolicy(),
        "audits": audited(payload),
        "paid": paid_for(study, how.get("round", 1)),
        "accesses": 1,
        "declared": DECLARED,
        "round": 1,
        "attempts": 1,
    }
    return decide_release(payload, study=study, mode=mode, evidence=Evidence(**evidence | how))


def facts_of(**changes: Any) -> Facts:
    """What a record says of a set that passed, made without differential privacy."""
    facts = Facts(
        round=1,
        date="2026-11-21",
        software="fedcondense 0.1.0",
        attempts=1,
        accesses=1,
        declared=DECLARED,
        memorisation="passed",
        membership="not-run",
        refusals=(),
        account=Account(guarantee=None, ledger_head=HEAD),
    )
    return replace(facts, **changes)


def guarantee_of(**changes: Any) -> Guarantee:
    """One full-batch Gaussian at epsilon 8 and its bound on any attacker (mu = 1 / 0.6003)."""
    guarantee = Guarantee(
        unit=Unit.PATIENT,
        epsilon="7.99613",
        delta="0.00001",
        accountant="prv",
        accountant_version="opacus 1.6.0",
        rows=(ChargedRow("class-embeddings", q="1", sigma="0.601", steps=1),),
        attacker=Attacker("0.8806", "0.2546", "0.07665"),
    )
    return replace(guarantee, **changes)


@dataclass
class Wire:
    """One run of a small study: all keys, and two enrolled sites."""

    study: Study = field(default_factory=small_study)
    purpose: str = "release"
    opening: OpeningKey = field(default_factory=OpeningKey.generate)
    server: SigningKey = field(default_factory=SigningKey.generate)
    keys: dict[str, SigningKey] = field(
        default_factory=lambda: {f"site-{n}": SigningKey.generate() for n in (1, 2)}
    )
    officers: dict[str, SigningKey] = field(default_factory=dict)

    @property
    def description(self) -> RunDescription:
        return RunDescription(
            study_digest=self.study.digest,
            run=RUN,
            recipient=self.opening.recipient.raw.hex(),
            quorum=self.study.quorum,
            deadline=1_800_000_000,
            purpose=self.purpose,
        )

    @property
    def expectation(self) -> Expectation:
        return Expectation(
            terms=terms_of(self.study),
            description=self.description,
            round=1,
            purposes=frozenset({self.purpose}),
            enrolled={site: key.public for site, key in self.keys.items()},
            officers={site: key.public for site, key in self.officers.items()},
        )

    def released(
        self, labels: tuple[int, ...] = (0, 0, 1), seed: int = 0, round: int = 1
    ) -> Released:
        mode = ReleaseMode.ENFORCED if self.purpose == "release" else ReleaseMode.STUDY_ONLY
        return decided(payload_of(self.study, labels, seed), self.study, mode, round=round)

    def sealed(
        self,
        site: str = "site-1",
        labels: tuple[int, ...] = (0, 0, 1),
        seed: int = 0,
        round: int = 1,
        **described: Any,
    ) -> bytes:
        """What the site's own code sends, under a description with `described` changed."""
        request = Request(replace(self.description, **described), round)
        released = self.released(labels, seed, round)
        return seal(
            released,
            request,
            site,
            self.study,
            self.keys[site],
            approvals=self.approvals(site, released.payload),
        )

    def approvals(self, site: str, payload: Payload) -> tuple[Approval, ...]:
        """That of the site's officer, where it has one."""
        return tuple(
            approve(payload.sha256, key) for name, key in self.officers.items() if name == site
        )

    def manifest(self, site: str = "site-1", **changes: Any) -> dict[str, Any]:
        def digits(suite: bytes, raw: bytes) -> str:
            return hashlib.sha256(suite + b"\0" + raw).hexdigest()

        suite = "MLKEM768-X25519+HKDF-SHA256+AES-256-GCM"
        values = {
            "version": 1,
            "suite": suite,
            "purpose": self.purpose,
            "study_digest": self.study.digest,
            "run": RUN,
            "round": 1,
            "site": site,
            "signing_key": digits(b"Ed25519", self.keys[site].public),
            "recipient": digits(suite.encode(), self.opening.recipient.raw),
            "body_bytes": 4 + 65536 + self.study.largest_payload,
        }
        return values | changes

    def contents(self, **changes: Any) -> dict[str, Any]:
        """The contents of a good set, as docs/ref-contribution-format.md lists them."""
        released, distill = self.released(), self.study.distill
        values = {
            "dtype": "uint8",
            "shape": [3, 1, 16, 16],
            "scale": {"lo": "-4", "hi": "4"},
            "labels_dtype": "uint8",
            "soft_labels": "float16" if distill.soft_labels else "none",
            "partition": distill.partition,
            "method": distill.method,
            "start": distill.start.value,
            "student_lr": released.payload.student_rate,
            "recipe": {
                "image": {
                    "channels": 1,
                    "highest": "4",
                    "lowest": "-4",
                    "mean": "0.5",
                    "size": 16,
                    "std": "0.25",
                },
                "evaluation": {"batch": 64, "length": "short", "networks": 5, "steps": 500},
            },
            "payload_sha256": released.payload.sha256,
            "release_record": released.record,
            "approvals": [],
        }
        return values | changes

    def body(self, contents: Any = None, arrays: bytes | None = None) -> bytes:
        """Length, contents (bytes, or an object to write), pixels, labels, soft labels, zeros."""
        if contents is None:
            contents = self.contents()
        if arrays is None:
            payload = self.released().payload
            arrays = payload.pixels + payload.labels + payload.soft
        text = contents if isinstance(contents, bytes) else canonical(contents)
        body = struct.pack("<I", len(text)) + text + arrays
        return body.ljust(4 + 65536 + self.study.largest_payload, b"\0")

    def blob(self, manifest: Any = None, body: bytes | None = None, site: str = "site-1") -> bytes:
        """A blob whose frame, sealing and signature are right, whatever they hold."""
        if manifest is None:
            manifest = self.manifest(site)
        text = manifest if isinstance(manifest, bytes) else canonical(manifest)
        digest = hashlib.sha256(text).digest()
        ciphertext = HPKE.encrypt(
            self.body() if body is None else body,
            self.opening.recipient.public_key(),
            info=b"fedcondense/v1\0" + digest,
        )
        message = b"fedcondense/sig/v1\0" + digest + hashlib.sha256(ciphertext).digest()
        return frame(text, ciphertext, self.keys[site].sign(message))


def frame(manifest: bytes, ciphertext: bytes, signature: bytes) -> bytes:
    return b"".join(
        (
            b"FEDCOND1",
            struct.pack("<I", len(manifest)),
            manifest,
            struct.pack("<Q", len(ciphertext)),
            ciphertext,
            signature,
        )
    )
