from __future__ import annotations

import base64
import html
import io
import re
import stat
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from wire_kit import decided, facts_of, payload_of, private_study, small_study
from words_kit import forbidden_in

from fedcondense.config.scenario import ReleaseMode
from fedcondense.exchange.approval import approve
from fedcondense.exchange.contribution import Provenance, SyntheticArrays, encode_payload
from fedcondense.exchange.keys import SigningKey, fingerprint_digits
from fedcondense.exchange.release_record import Refusal, build_record
from fedcondense.exchange.terms import terms_of
from fedcondense.privacy.findings import AuditResult, Audits, Finding, Verdict
from fedcondense.privacy.record_page import (
    PAIRS,
    SHOWN,
    Approving,
    Likeness,
    LocalRecord,
    grouped,
    on_screen,
    write_record_page,
)

PLAIN, PRIVATE = small_study(), private_study()
OFFICER = SigningKey(bytes(range(32)))
NOBODY = Approving(needed=False, officer=None, given=False, command="")
WANTED = Approving(
    needed=True,
    officer=OFFICER.fingerprint,
    given=False,
    command="fedcondense-site approve site.toml 1",
)


def finding(statistic: str, verdict: Verdict = Verdict.PASSED, **changes: Any) -> Finding:
    values = {
        "label": 0,
        "space": "pixels/whole",
        "value": 0.5,
        "low": None,
        "high": None,
        "threshold": 0.001,
        "p": 0.2,
        "n": 6,
    }
    return Finding(statistic, verdict=verdict, **values | changes)


def audits_of(payload, *findings: Finding, note: str = "") -> Audits:
    result = AuditResult.of("memorisation", findings, seconds=1.0, note=note)
    return Audits(payload.sha256, "quick", (result,))


def likeness(of: float = 0.6, name: str = "normal") -> Likeness:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (2, 1, 8, 8)).astype(np.uint8)
    return Likeness(pictures[0], pictures[1], name, of)


def local(study=PLAIN, **changes: Any) -> LocalRecord:
    payload = payload_of(study)
    values = {
        "site": "st-elsewhere",
        "study": study,
        "payload": payload,
        "record": decided(payload, study).record,
        "audits": audits_of(payload, finding("closest")),
        "training": {"normal": 854, "pneumonia": 120},
        "likenesses": (likeness(),),
        "approving": NOBODY,
    }
    return LocalRecord(**values | changes)


def refused(*refusals: Refusal, study=PLAIN, **facts: Any) -> LocalRecord:
    payload = payload_of(study)
    found = facts_of(refusals=refusals, **facts)
    record = build_record(payload, terms_of(study), purpose="release", facts=found)
    return local(study, record=record)


def html_of(tmp_path, of: LocalRecord) -> str:
    path = tmp_path / "release-record.html"
    write_record_page(path, of)
    return path.read_text(encoding="utf-8")


def text_of(tmp_path, of: LocalRecord) -> str:
    """The words of the page, with one space between them."""
    body = html_of(tmp_path, of).partition("<body>")[2]
    words = html.unescape(re.sub(r"<[^>]+>", " ", body))
    return " ".join(words.replace("\u202f", " ").split())


def test_the_decision_is_the_heading(tmp_path):
    given = replace(WANTED, given=True)
    study_only = decided(payload_of(PLAIN), PLAIN, ReleaseMode.STUDY_ONLY).record
    pages = {
        "This set may leave.": local(),
        "This set may leave, if you approve it.": local(approving=WANTED),
        "This set may leave; you have approved it.": local(approving=given),
        "This set must not leave.": refused(Refusal.REAL_START),
        "A study on one machine: nothing leaves.": local(record=study_only),
    }

    for heading, of in pages.items():
        assert f">{heading}</h1>" in html_of(tmp_path, of)


def test_a_refusal_gives_its_reasons_and_offers_no_way_around(tmp_path):
    page = refused(Refusal.REAL_START, Refusal.AUDIT_MEMORISATION, memorisation="refused")
    text = text_of(tmp_path, replace(page, approving=WANTED))

    assert "the synthetic images began as radiographs of patients" in text
    assert "the set is closer to the patients it was made from than to others" in text
    assert "Nothing was sent, and nothing will be." in text
    assert "no setting and no signature lets a refused set leave" in text
    assert WANTED.command not in text
    assert "Who gets it nobody" in text
    assert "no original image is included" not in text


def test_a_set_that_was_not_audited_as_asked_may_be_tried_again(tmp_path):
    text = text_of(tmp_path, refused(Refusal.AUDIT_MISSING, memorisation="not-run"))

    assert "preview SITE.toml , which tries again" in text
    assert "no setting and no signature" not in text


def test_what_a_hospital_says_of_its_data_stands_on_its_page_and_not_in_the_record(tmp_path):
    page = local(about={"Ethics vote": "EK 7/2024", "Period": "<2019>"})

    before, record = text_of(tmp_path, page).split("word for word")

    assert "Ethics vote EK 7/2024 Period <2019>" in before
    assert "EK 7/2024" not in record
    assert "says of the data" not in text_of(tmp_path, local())


def test_the_page_names_what_nobody_tried(tmp_path):
    text = text_of(tmp_path, local())

    assert "Not assessed Whether sets of several rounds together name a patient" in text


@pytest.mark.parametrize("refusal", list(Refusal))
def test_every_refusal_has_a_page(tmp_path, refusal):
    assert "This set must not leave." in html_of(tmp_path, refused(refusal))


def test_without_a_guarantee_the_page_says_nothing_is_guaranteed(tmp_path):
    text = text_of(tmp_path, local())

    assert "What is guaranteed Nothing. There is no formal privacy guarantee" in text
    assert "is not bounded any more, whatever later studies do" in text
    assert "epsilon" not in text.partition("word for word")[0]


def test_a_guarantee_says_what_any_attacker_may_find_and_against_what_chance(tmp_path):
    text = text_of(tmp_path, local(PRIVATE))

    assert "knows every other patient, sees all that leaves" in text
    assert "1 in 1,000 0.1 % 7.7 %" in text
    assert "1 in 100 1 % 25.4 %" in text
    assert "(7.99613, 0.00001)-differential privacy, unit patient, add/remove" in text
    assert "comes to epsilon 9.25 at delta 0.00001, unit patient" in text
    assert "the noise is drawn once" in text


def test_patients_whose_use_is_not_bounded_are_told_of(tmp_path):
    record = local(PRIVATE).record
    total = {"cumulative_epsilon": "not bounded", "cumulative_delta": None, "cumulative_unit": None}
    page = local(PRIVATE, record=record | {"privacy": record["privacy"] | total})

    assert "an earlier study used them without noise, which cannot be undone" in text_of(
        tmp_path, page
    )


def test_what_the_ledger_does_not_bear_out_is_no_guarantee(tmp_path):
    text = text_of(tmp_path, refused(Refusal.LEDGER, study=PRIVATE))

    assert "The study asks for a guarantee, and the ledger does not bear it out." in text


def test_every_finding_stands_on_the_page_with_its_limit(tmp_path):
    payload = payload_of(PLAIN)
    found = [finding("closest", n=n, p=0.1 * n) for n in range(1, 10)]
    found.append(finding("copy", p=None, threshold=0.95, value=0.4))
    text = text_of(tmp_path, local(audits=audits_of(payload, *found, note="ten questions")))

    assert "All 10 findings" in text
    assert all(f"the closest of {n} pictures" in text for n in range(1, 10))
    assert "refused from 0.950 on" in text
    assert "ten questions" in text
    assert "Membership: not run" in text
    assert "This was not tried on this set." in text


def test_what_refuses_stands_first_and_is_marked(tmp_path):
    payload = payload_of(PLAIN)
    bad = finding("nearest-in-train", Verdict.REFUSED, value=0.98, p=1e-12)
    record = refused(Refusal.AUDIT_MEMORISATION, memorisation="refused").record
    page = local(record=record, audits=audits_of(payload, finding("closest"), bad))

    table = html_of(tmp_path, page).partition("<tbody>")[2].partition("</tbody>")[0]

    assert table.count("<tr>") == 1
    assert "98.0 % of 6 pictures" in table
    assert '<b class="first">refused</b>' in table


def test_findings_on_another_payload_are_not_shown(tmp_path):
    other = payload_of(PLAIN, seed=1)
    text = text_of(tmp_path, local(audits=audits_of(other, finding("closest"))))

    assert "the closest of" not in text
    assert "the closest of" not in text_of(tmp_path, local(audits=None))


def test_pictures_of_patients_are_marked_as_staying_here(tmp_path):
    page = html_of(tmp_path, local(likenesses=(likeness(),) * (PAIRS + 3)))

    assert page.count("real: stays here") == PAIRS
    assert page.count('alt="real, normal, stays at this hospital"') == PAIRS
    assert "They stay at this hospital, and so does this page." in page
    assert "That two look different proves nothing." in page


def test_without_pictures_the_page_says_so(tmp_path):
    assert "No pictures were kept." in text_of(tmp_path, local(likenesses=()))


def test_the_pictures_are_those_of_the_bytes_that_would_leave(tmp_path):
    page = local()
    pattern = r'base64,([^"]+)" alt="synthetic, (?:normal|pneumonia)" '

    sources = re.findall(pattern, html_of(tmp_path, page))
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]

    expected = on_screen(page.payload, PLAIN.image)
    assert np.array_equal(shown[:3], expected[:, 0])


def test_a_pixel_is_shown_as_the_radiograph_that_it_stands_for():
    values = np.array([-4.0, 0.0, 1.0, 4.0] * 64, np.float32).reshape(1, 1, 16, 16)
    payload = encode_payload(
        SyntheticArrays(values, np.array([0], np.uint8)),
        Provenance.of(PLAIN, ("pneumonia",)),
        PLAIN,
    )

    # sent as steps 0, 128, 159, 255 of -4 to 4; step q is grey level 2 q - 127.5, clipped
    shown = on_screen(payload, PLAIN.image)[0, 0, 0, :4].tolist()
    assert shown == pytest.approx([0, 128.5, 190.5, 255], abs=0.5)


def test_a_page_shows_the_first_of_many_images(tmp_path):
    study = small_study(images_per_class=SHOWN + 5)
    payload = payload_of(study, (0,) * (SHOWN + 5) + (1,))
    page = html_of(tmp_path, local(study, payload=payload, record=decided(payload, study).record))

    assert f"{SHOWN} of {SHOWN + 5}" in page
    assert page.count('alt="synthetic, normal"') == SHOWN + 1  # and one beside a radiograph


def test_small_classes_and_classes_left_out_are_named(tmp_path):
    payload = payload_of(PLAIN, (0, 0))
    page = local(payload=payload, record=decided(payload, PLAIN).record)

    text = text_of(tmp_path, page)

    assert "Left out, because this hospital has too few patients: pneumonia." in text
    assert "Fewer than 200 images: pneumonia." in text
    assert "854 images of normal" in text
    assert "Fewer than" not in text_of(tmp_path, local(training={"normal": 854}))
    assert "These numbers stay here" not in text_of(tmp_path, local(training={}))


def test_who_approves_is_told_what_to_type_and_what_to_compare(tmp_path):
    page = local(approving=WANTED)
    text = text_of(tmp_path, page)

    assert "type: fedcondense-site approve site.toml 1 The command" in text
    assert grouped(page.payload.sha256) in text
    assert OFFICER.fingerprint in text
    assert "as in the site's settings" in text_of(
        tmp_path, local(approving=replace(WANTED, officer=None, given=True))
    )
    assert "This hospital asks for no approval." in text_of(tmp_path, local())


def test_a_fingerprint_is_read_in_groups_of_four():
    digits = approve("ab" * 32, OFFICER).fingerprint

    assert grouped(digits) == OFFICER.fingerprint == grouped(OFFICER.fingerprint)
    assert fingerprint_digits(grouped(digits)) == digits


def test_soft_labels_and_a_step_size_are_said_to_go_with_the_set(tmp_path):
    study = small_study(distill={"method": "mtt", "label_rate": 1.0})

    text = text_of(tmp_path, local(study))

    assert "with a probability for each class; one number for training, 0." in text


def test_the_whole_record_that_leaves_stands_on_the_page(tmp_path):
    page = local(PRIVATE)

    leaves = text_of(tmp_path, page).partition("word for word")[2]

    assert all(f" {key} " in leaves for key in page.record)
    assert page.record["privacy"]["ledger_head"] in leaves


def test_only_this_user_reads_the_page_and_it_loads_nothing(tmp_path):
    path = tmp_path / "release-record.html"

    write_record_page(path, local())
    first = path.read_bytes()
    write_record_page(path, local())

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == first
    assert not re.findall(rb'(?:src|href)="(?!data:|#)', first)
    assert b"<script" not in first


def test_a_hostile_class_name_opens_no_element(tmp_path):
    study = small_study(classes=["<script>alert(1)</script>".replace("/", "|"), "b"])

    assert "<script" not in html_of(tmp_path, local(study, training={"<b>x": 1}))


def test_no_word_of_the_page_promises_what_nobody_showed(tmp_path):
    pages = [local(), local(PRIVATE, approving=WANTED), refused(*Refusal)]

    for page in pages:
        assert forbidden_in(text_of(tmp_path, page)) == []


def test_laws_are_pointed_at_and_nothing_is_said_of_them(tmp_path):
    foot = html_of(tmp_path, local()).partition("<footer>")[2]

    assert "pointers, not advice: GDPR Recital 26" in foot
    assert "EDPB Opinion 28/2024" in foot
