"""unittest's results as TAP: `tap.main()` in place of `unittest.main()`. What goes wrong is a comment."""
import gc
import sys
import unittest


class TapResult(unittest.TestResult):
    """One line a test, as it ends."""

    def say(self, test, good, note=""):
        name = test.shortDescription() or test.id()
        print(f"{'' if good else 'not '}ok {self.testsRun} - {name}{note}", flush=True)

    def addSuccess(self, test):
        self.say(test, True)

    def addSkip(self, test, reason):
        self.say(test, True, f" # SKIP {reason}")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.say(test, False)
        print("".join(f"# {line}\n" for line in self.failures[-1][1].splitlines()), file=sys.stderr, end="")

    def addError(self, test, err):
        super().addError(test, err)
        self.say(test, False)
        print("".join(f"# {line}\n" for line in self.errors[-1][1].splitlines()), file=sys.stderr, end="")

    def addSubTest(self, test, subtest, err):
        if err:
            self.addFailure(test, err)


def objects():
    """How many objects there are, and references to None: what leaks one each time is seen in the sum. Some
    come and go by themselves."""
    gc.collect()
    return len(gc.get_objects()) + sys.getrefcount(None)


def main():
    result = TapResult()
    unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]).run(result)
    print(f"1..{result.testsRun}")
    sys.exit(0 if result.wasSuccessful() else 1)
