from __future__ import annotations

import fcntl
import os
import threading

import pytest

from fedcondense.files.lock import is_locked, locked, locked_if_free


@pytest.fixture(params=["a file", "a folder"])
def path(request, tmp_path):
    here = tmp_path / "here"
    if request.param == "a folder":
        here.mkdir()
    return here


def test_what_is_held_is_free_to_nobody_until_it_is_let_go(path):
    with locked(path), locked_if_free(path) as second:
        assert not second
    with locked_if_free(path) as third:
        assert third


def test_a_holder_that_fails_lets_go(path):
    with pytest.raises(ZeroDivisionError), locked(path):
        raise ZeroDivisionError

    with locked_if_free(path) as free:
        assert free


def test_who_must_wait_goes_on_as_soon_as_it_is_free(path):
    order = []

    def second():
        with locked(path):
            order.append("second")

    with locked(path):
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join(10)

    assert order == ["first", "second"]


def test_a_look_tells_whether_somebody_holds_it_and_changes_nothing(path):
    with locked(path):
        assert is_locked(path)
        assert is_locked(path)
    assert not is_locked(path)


def test_a_look_at_the_same_time_keeps_nobody_out(path):
    with locked(path):
        pass
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [looking]).start()

    with locked_if_free(path) as free:
        assert free


def test_nobody_holds_what_does_not_exist_and_a_look_does_not_make_it(tmp_path):
    assert not is_locked(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_locked_gets_no_file(tmp_path):
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_nobody_else_may_open_a_lock_file(tmp_path):
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").stat().st_mode & 0o077 == 0
