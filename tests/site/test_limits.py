"""What a site answers at most, counted where no restart forgets it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from joined_kit import Hospital, hospital

from fedcondense.config.site import SiteLimits, load_site
from fedcondense.errors import LimitExceeded
from fedcondense.site.limits import check_message, check_study, count_request


@pytest.fixture
def lakeside(tmp_path: Path) -> Hospital:
    return hospital(tmp_path / "lakeside", limits={"max_requests_per_round": 3})


def test_a_study_within_the_limits_passes(lakeside: Hospital) -> None:
    check_study(SiteLimits(max_synthetic_images=6, max_rounds=1), lakeside.study, 1)


@pytest.mark.parametrize(
    ("limits", "rounds", "key"),
    [
        (SiteLimits(max_synthetic_images=5), 1, "max_synthetic_images"),
        (SiteLimits(max_rounds=2), 3, "max_rounds"),
    ],
)
def test_a_study_beyond_a_limit_is_refused_and_the_limit_named(
    lakeside: Hospital, limits: SiteLimits, rounds: int, key: str
) -> None:
    study = lakeside.study.model_copy(update={"rounds": rounds})  # 2 classes x 3 images

    with pytest.raises(LimitExceeded) as error:
        check_study(limits, study, 1)

    assert f"limits.{key} " in error.value.hint
    assert (error.value.code, error.value.exit_code) == ("FC409", 1)


def test_a_message_of_another_type_or_size_is_refused() -> None:
    limits = SiteLimits(messages=("query.hello",), max_megabytes_in=2)

    check_message(limits, "query.hello", 2_000_000)
    with pytest.raises(LimitExceeded, match="a type of message"):
        check_message(limits, "train.contribute", 1)
    with pytest.raises(LimitExceeded, match=r"2\.1 MB"):
        check_message(limits, "query.hello", 2_100_000)


def test_requests_are_counted_by_round_and_no_more_than_allowed(lakeside: Hospital) -> None:
    site = load_site(lakeside.settings)

    assert [count_request(site, lakeside.study, 1) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(LimitExceeded, match="request 4 of its round"):
        count_request(load_site(lakeside.settings), lakeside.study, 1)
    assert count_request(site, lakeside.study, 2) == 1


def test_another_study_has_a_count_of_its_own(lakeside: Hospital) -> None:
    site = load_site(lakeside.settings)
    other = lakeside.study.model_copy(update={"seed": 5})
    count_request(site, lakeside.study, 1)

    assert other.digest != lakeside.study.digest
    assert count_request(site, other, 1) == 1


def test_two_requests_at_once_are_two(lakeside: Hospital) -> None:
    site = load_site(lakeside.settings)
    threads = [
        threading.Thread(target=count_request, args=(site, lakeside.study, 1)) for _ in range(2)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert count_request(site, lakeside.study, 1) == 3
