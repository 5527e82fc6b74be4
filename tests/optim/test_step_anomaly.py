import pytest

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.autograd import AnomalyWarning
from promptgrad.testing import Fields


def test_a_step_without_gradients_is_an_anomaly():
    program = nn.Predict("question -> answer")
    optimizer = optim.TGD(program.parameters(), lm=pg.lm.FunctionLM(lambda messages: "x"))
    with pg.detect_anomaly(), pytest.warns(AnomalyWarning, match="the step changed nothing.*instruction"):
        optimizer.step()


def test_the_trial_of_a_gated_step_is_no_measurement_on_training_examples():
    answers = Fields(answer=lambda inputs: "Paris", critique="say more", new_instruction="Answer in one word.")
    lm = pg.lm.FunctionLM(answers)
    program = nn.Predict("question -> answer").to(lm)
    batch = [pg.Example(question=f"q{i}", answer="Rome").with_inputs("question") for i in range(1)]
    criterion = nn.MetricLoss(pg.metrics.exact_match)
    optimizer = optim.TGD(program.parameters(), lm=lm, proposals=1)

    def closure():
        return criterion(program.map(batch), batch)

    with pg.detect_anomaly() as found:
        loss = closure()
        loss.backward()
        with pytest.warns(AnomalyWarning, match="the step changed nothing"):
            optimizer.step(closure, loss=loss)
        assert not any("both trained on and measured on" in text for text in found.anomalies)
        with pg.no_grad(), pytest.warns(AnomalyWarning, match="both trained on and measured on"):
            closure()
