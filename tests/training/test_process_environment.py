"""Processes started for training are told how to hold memory and how to wait."""

import os

from tests.harness import training_process
from training import process_environment

MEMORY = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:"
    "glibc.malloc.trim_threshold=1099511627776"
)


def test_a_fresh_process_gets_the_variables_and_this_one_keeps_its_own(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert training_process.call(os.getenv, "GLIBC_TUNABLES") == MEMORY
    assert training_process.call(os.getenv, "GOMP_SPINCOUNT") == "10000"
    assert "GLIBC_TUNABLES" not in os.environ
    assert "GOMP_SPINCOUNT" not in os.environ


def test_what_a_person_set_is_kept(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    found = process_environment.environment()
    assert found["GOMP_SPINCOUNT"] == "7"
    assert found["GLIBC_TUNABLES"] == f"glibc.malloc.arena_max=2:{MEMORY}"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    found = process_environment.environment()["GLIBC_TUNABLES"]
    assert found == MEMORY.replace("hugetlb=1", "hugetlb=0")


def test_a_chosen_way_of_waiting_is_kept(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert "GOMP_SPINCOUNT" not in process_environment.environment()
