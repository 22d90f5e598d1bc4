#!/usr/bin/env python3
"""What nextest's junit.xml files say of the tests: failures and slowest run of each, the slowest first.

timings.py [--top N] JUNIT...    with several files, of all these runs together
"""

import argparse
import os
import sys
import xml.etree.ElementTree as ElementTree


def read(path, tests):
    """Adds the runs of one file to `tests`: (suite, test) -> [seconds, ...] and number of failures."""
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        for case in suite.iter("testcase"):
            entry = tests.setdefault((suite.get("name"), case.get("name")), {"seconds": [], "failed": 0})
            entry["seconds"].append(float(case.get("time")))
            entry["failed"] += any(case.find(kind) is not None for kind in ("failure", "error"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--top", type=int, default=10, help="how many of the slowest are shown (10)")
    parser.add_argument("junit", nargs="+")
    arguments = parser.parse_args()
    tests = {}
    if missing := [path for path in arguments.junit if not os.path.exists(path)]:
        sys.exit(f"timings: no test ran: there is no {missing[0]}")
    for path in arguments.junit:
        read(path, tests)
    slowest = sorted(tests.items(), key=lambda item: -max(item[1]["seconds"]))
    failed = [item for item in slowest if item[1]["failed"]]
    shown = failed + [item for item in slowest[: arguments.top] if not item[1]["failed"]]
    print(f"{'failed':>9}  {'slowest':>9}  test")
    for (suite, name), entry in shown:
        runs = len(entry["seconds"])
        print(f"{entry['failed']:>4} of {runs:<2}  {max(entry['seconds']):>7.1f} s  {suite} {name}")
    total = sum(sum(entry["seconds"]) for entry in tests.values()) / len(arguments.junit)
    print(f"{len(tests)} tests, {total:.0f} s of tests a run, {len(failed)} of them failed")


if __name__ == "__main__":
    main()
