"""Runs the tests of one module on MicroPython: micropython vm_runner.py MODULE SEED.

A test is a function `test_*`; one that raises has failed. Exit status 1 if any did.
"""

import random
import sys

module = __import__(sys.argv[1])
random.seed(int(sys.argv[2]))
failed = 0
passed = 0
for name in sorted(dir(module)):
    if not name.startswith("test_"):
        continue
    try:
        getattr(module, name)()
        passed += 1
    except Exception as error:  # a test may fail by any exception; it is shown
        failed += 1
        print("FAILED", sys.argv[1], name)
        sys.print_exception(error)
print("%d passed, %d failed" % (passed, failed))
sys.exit(1 if failed else 0)
