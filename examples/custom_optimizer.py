"""A complete optimizer of your own: add phrases of a list to the instructions, as long as one is worth it.

python examples/custom_optimizer.py                        # offline, on the embedded model
python examples/custom_optimizer.py --lm openai/gpt-4o-mini
"""

import argparse

import promptgrad as pg
from promptgrad import nn, optim, search
from promptgrad.data import pocket


class Phrases(optim.Search):
    """In each round, race the best so far with one more phrase at its end, each phrase in each instruction."""

    kinds = ("instruction",)

    def __init__(self, params, phrases, rounds=3):
        super().__init__(params)
        self.phrases, self.rounds = list(phrases), rounds  # public attributes are its settings

    async def fit(self, session):
        for number in range(self.rounds):
            best = session.incumbent
            longer = []
            for place in session.places(self.kinds):
                text = session.value(place.path, best)
                fresh = [phrase for phrase in self.phrases if phrase not in text]
                longer += [best.child({place.path: f"{text} {phrase}"}, f"with {phrase!r}") for phrase in fresh]
            await search.eliminate(session, longer, scope=f"round/{number}")
            if session.incumbent is best or session.perfect():
                break

    def expected_calls(self, plan):
        runs = self.rounds * len(self.trained()) * len(self.phrases) * plan.val
        return [("races", runs * plan.calls_per_example, False)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", default="pocket", help="name of the model; the embedded one if not given")
    parser.add_argument("--calls", type=int, default=1500, help="most calls of the model")
    args = parser.parse_args()
    task = pocket.task("color-of-last")
    train, val, test = task.split(train=8, val=60, test=60)
    model = nn.Predict("text -> answer", instruction="write").to(args.lm)
    optimizer = Phrases(model.parameters(), ["the color", "the size", "of the first word", "of the last word"])
    trainer = pg.Trainer(model, optimizer, metric=task.metric, budget=pg.Budget(calls=args.calls), seed=0)
    print(trainer.fit(train, val, test))
    print(f"instruction: {model.instruction.data}")


if __name__ == "__main__":
    main()
