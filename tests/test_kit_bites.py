"""Mutation test of the kit: a backend with one fault fails, and the message names the fault."""

from __future__ import annotations

import re
from collections.abc import Iterator

import mutants
import pytest
from mutants import MUTANTS

Failures = dict[str, list[str]]


class Collector:
    """A pytest plug-in that runs each mutant's test and stores the messages of failures."""

    def __init__(self) -> None:
        self.failures: Failures = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self.is_wanted(item)]

    def is_wanted(self, item: pytest.Item) -> bool:
        name = item.nodeid.split("::")[1].removeprefix("Test")
        return all(word in item.name for word in MUTANTS[name].test.split())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            name = report.nodeid.split("::")[1]
            self.failures.setdefault(name, []).append(report.longreprtext)


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failures]:
    """Run all mutants once, in one inner session."""
    collector, empty = Collector(), tmp_path_factory.mktemp("inner")
    (empty / "pytest.ini").write_text("[pytest]\n")
    pytest.main(
        [mutants.__file__, f"--rootdir={empty}", f"-c={empty / 'pytest.ini'}", "--noconftest",
         "-p", "no:cacheprovider", "-p", "no:terminal"],
        plugins=[collector],
    )  # fmt: skip
    return collector.failures


@pytest.mark.parametrize("name", list(MUTANTS))
def test_the_fault_is_found_and_named(name: str, failures: Failures) -> None:
    texts = failures.get(f"Test{name}", [])
    assert texts, f"{MUTANTS[name].test} does not notice {name}"
    said = [text for text in texts if re.search(MUTANTS[name].says, text)]
    assert said, f"no failure says {MUTANTS[name].says!r}:\n{texts[0]}"


def test_failures_name_the_seed(failures: Failures) -> None:
    (text, *_) = failures["TestSlopeAtZero"]
    for part in ("dense_backward", "relu", "x (", "float32", "worst at (", "got ", "expected ",
                 "allowed ", "seed 0"):  # fmt: skip
        assert part in text, text
