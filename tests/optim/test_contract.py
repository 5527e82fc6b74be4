"""What holds for every optimizer, by one suite; a new one is one line."""

from promptgrad import optim
from promptgrad.testing.optimizers import OptimizerContract


class TestAuto(OptimizerContract):
    def make(self, params):
        return optim.Auto(params, steps=3, rows=8, batch_size=4, proposals=2, demos=(2, 4))


class TestLabeledFewShot(OptimizerContract):
    def make(self, params):
        return optim.LabeledFewShot(params, k=3)


class TestKNNFewShot(OptimizerContract):
    def make(self, params):
        return optim.KNNFewShot(params, k=2)


class TestBootstrapFewShot(OptimizerContract):
    def make(self, params):
        return optim.BootstrapFewShot(params, max_bootstrapped_demos=3, max_labeled_demos=2, threshold=0.0)


class TestRandomSearch(OptimizerContract):
    def make(self, params):
        return optim.RandomSearch(
            params, max_bootstrapped_demos=2, max_labeled_demos=2, num_candidate_programs=3, threshold=0.0
        )


class TestMIPRO(OptimizerContract):
    def make(self, params):
        return optim.MIPRO(params, num_candidates=3, num_demo_sets=2, num_trials=5, minibatch_size=6, full_eval_every=3)


class TestTGD(OptimizerContract):
    def make(self, params):
        return optim.TGD(params, steps=3, batch_size=4, proposals=2)


class TestTGDWhoseWriterFindsTheBlame(OptimizerContract):
    def make(self, params):
        return optim.TGD(params, blame="writer", steps=3, batch_size=4, proposals=2)


class TestBetterTogether(OptimizerContract):
    def make(self, params):
        params = list(params)
        first = optim.LabeledFewShot(params, k=2)
        second = optim.MIPRO(params, num_candidates=2, num_demo_sets=1, num_trials=3, minibatch_size=6)
        return optim.BetterTogether("demos -> texts", demos=first, texts=second)


class TestEnsemble(OptimizerContract):
    def make(self, params):
        inner = optim.MIPRO(params, num_candidates=2, num_demo_sets=1, num_trials=3, minibatch_size=6)
        return optim.Ensemble(inner, size=2)


class TestGEPA(OptimizerContract):
    def make(self, params):
        return optim.GEPA(params, steps=5, minibatch_size=4)
