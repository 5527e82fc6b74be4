"""What holds for every module, by one suite; a new one is one class."""

from promptgrad import nn
from promptgrad.testing.modules import ModuleContract

QA = "question -> answer"


def first_letter(inputs, output):
    return output.answer.startswith("P")


class TestPredict(ModuleContract):
    blamed = ("instruction",)

    def make(self):
        return nn.Predict(QA)


class TestChainOfThought(TestPredict):
    def make(self):
        return nn.ChainOfThought(QA)


class TestEnsemble(ModuleContract):
    calls = 2
    blamed = ("members.0.instruction", "members.1.instruction")

    def make(self):
        return nn.Ensemble([nn.Predict(QA), nn.ChainOfThought(QA)])


class TestIdentity(ModuleContract):
    calls = 0

    def make(self):
        return nn.Identity()


class TestParallel(ModuleContract):
    calls = 2
    blamed = ("0.instruction", "1.instruction")

    def make(self):
        return nn.Parallel(nn.Predict(QA), nn.ChainOfThought(QA))


class TestParallelByName(TestParallel):
    blamed = ("one.instruction", "two.instruction")

    def make(self):
        return nn.Parallel({"one": nn.Predict(QA), "two": nn.ChainOfThought(QA)})


class TestBestOfN(ModuleContract):
    blamed = ("module.instruction",)

    def make(self):
        return nn.BestOfN(nn.Predict(QA), 3, first_letter, threshold=1)


class TestBestOfNSideBySide(TestBestOfN):
    calls = 3

    def make(self):
        return nn.BestOfN(nn.Predict(QA), 3, first_letter)


class TestSelfConsistency(ModuleContract):
    calls = 3
    blamed = ("module.instruction",)

    def make(self):
        return nn.SelfConsistency(nn.ChainOfThought(QA), 3)


class TestMultiChainComparison(ModuleContract):
    calls = 4
    blamed = ("attempt.instruction", "compare.instruction")

    def make(self):
        return nn.MultiChainComparison(QA)
