"""What a row in flight keeps alive: with hundreds of them, the garbage collector is most of what evaluation adds."""

import gc
import sys
import threading

import pytest

import promptgrad as pg
from promptgrad import aio, nn

ROWS = 40


class Program(nn.Module):
    def __init__(self):
        super().__init__()
        self.answer = nn.Predict("question -> answer")

    def forward(self, question):
        return self.answer(question=question)


def tracked():
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="frames and closures are other objects elsewhere")
@pytest.mark.parametrize(("program", "most"), [(nn.Predict("question -> answer"), 43), (Program(), 98)])
def test_a_row_in_flight_is_few_objects(program, most):
    reply = aio.Signal()
    waiting = threading.Semaphore(0)

    async def wait(messages):
        waiting.release()
        return await reply

    model = program.to(pg.lm.Cache(pg.lm.Retry(pg.lm.Limit(pg.lm.FunctionLM(wait, name="waits"), ROWS))))
    data = [pg.Example(question=f"{number}?", answer="yes").with_inputs("question") for number in range(ROWS)]
    answers = pg.lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]", name="answers")
    with pg.context(lm=answers, override=True):  # what the first evaluation of a process imports is no row's
        pg.evaluate(model, data[:1], pg.metrics.exact_match)
    before = tracked()
    report = []
    evaluation = threading.Thread(
        target=lambda: report.append(pg.evaluate(model, data, pg.metrics.exact_match, concurrency=ROWS))
    )
    evaluation.start()
    try:
        for _ in range(ROWS):
            assert waiting.acquire(timeout=60)
        alive = (tracked() - before) / ROWS
    finally:
        reply.set("[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]")
        evaluation.join(60)
    assert report[0].score == 1.0
    assert alive <= most, alive
