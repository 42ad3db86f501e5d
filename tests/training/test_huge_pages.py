"""Processes started for training have glibc's huge pages asked for."""

import os

from training import huge_pages


def test_a_fresh_process_gets_the_tunable_and_this_one_keeps_its_own(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert huge_pages.call(os.getenv, "GLIBC_TUNABLES") == "glibc.malloc.hugetlb=1"
    assert "GLIBC_TUNABLES" not in os.environ


def test_what_a_person_set_is_kept(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    assert huge_pages.environment() == {
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    }
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    assert huge_pages.environment() == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
