"""Reads the suite's reports, names each case that failed, and sums up. For Python 2.7, which the suite brings along."""
from __future__ import print_function

import json
import sys

# Non-strict: right, but later than it could be (a text's UTF-8 is checked when the message is whole). Informational: any way is right.
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")


def main(cases_min, paths):
    passed, failed = [], 0
    for path in paths:
        with open(path) as report:
            cases = json.load(report)["flashlane"]
        for name, case in sorted(cases.items()):
            if case["behavior"] in PASSED and case["behaviorClose"] in PASSED:
                passed.append(case["behavior"])
            else:
                failed += 1
                print("case %s: %s, close: %s, code %s; %s" % (
                    name, case["behavior"], case["behaviorClose"], case["remoteCloseCode"], case["reportfile"]))
    missing = max(0, cases_min - len(passed) - failed)
    if missing:
        print("%d cases did not run" % missing)
    print("conformance: %d passed, %d failed (%d non-strict, %d informational)" % (
        len(passed), failed + missing, passed.count("NON-STRICT"), passed.count("INFORMATIONAL")))
    return 1 if failed or missing or not passed else 0


sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
