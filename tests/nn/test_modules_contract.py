"""What holds for every module, by one suite; a new one is one class."""

from promptgrad import lm, nn
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


class Checked(nn.Module):
    """Says what should hold of its answer."""

    def __init__(self):
        super().__init__()
        self.draft = nn.Predict("question -> draft")
        self.answer = nn.Predict("draft -> answer")

    async def forward(self, question):
        draft = (await self.draft.acall(question=question)).draft
        output = await self.answer.acall(draft=draft)
        nn.Suggest(output.answer == "Paris", "the name alone", output)
        return output


class TestRefine(ModuleContract):
    calls = 3  # an attempt, the advice, an attempt
    blamed = ("module.instruction",)

    def answers(self):
        return {"answer": lambda inputs: "Paris" if "hint" in inputs else "Rome", "advice": "Think of the Seine."}

    def make(self):
        return nn.Refine(nn.Predict(QA), 3, first_letter)


class TestRefineByConditions(ModuleContract):
    calls = 4
    blamed = ("module.draft.instruction", "module.answer.instruction")

    def answers(self):
        return {"answer": lambda inputs: "Paris" if "hint" in inputs else "It is Paris", "draft": "the Seine"}

    def make(self):
        return nn.Refine(Checked(), 3)


class TestRefineOfSeveralModules(TestRefineByConditions):
    calls = 5

    def answers(self):
        return {
            "answer": lambda inputs: "Paris" if "hint" in inputs else "Rome",
            "draft": "the Seine",
            "advice": '{"answer": "Think of the Seine."}',
        }

    def make(self):
        two = nn.Sequential({"draft": nn.Predict("question -> draft"), "answer": nn.Predict("draft -> answer")})
        return nn.Refine(two, 3, first_letter)


class TestRouteByALanguageModel(ModuleContract):
    calls = 2
    blamed = ("branches.facts.instruction", "router.instruction")

    def answers(self):
        return {"answer": "Paris", "topic": "facts"}

    def make(self):
        return nn.Route({"math": nn.Predict(QA), "facts": nn.ChainOfThought(QA)}, "question -> topic")


class TestRouteByAChoice(ModuleContract):
    blamed = ("branches.math.instruction",)

    def make(self):
        return nn.Route({"math": nn.Predict(QA), "facts": nn.ChainOfThought(QA)})


class TestChecked(ModuleContract):
    calls = 2
    blamed = ("draft.instruction", "answer.instruction")

    def make(self):
        return Checked()


def weather(town: str) -> str:
    """The weather in a town.

    Args:
        town: Name of the town.
    """
    return f"It rains in {town}."


class TestReAct(ModuleContract):
    calls = 2
    blamed = ("step.instruction",)

    def respond(self, messages):
        done = messages[-1]["content"].startswith("`weather` returned")
        call = ("finish", '{"answer": "It rains."}') if done else ("weather", '{"town": "Paris"}')
        return f"[[ ## thought ## ]]\nI look it up.\n\n[[ ## tool ## ]]\n{call[0]}\n\n[[ ## arguments ## ]]\n{call[1]}"

    def make(self):
        return nn.ReAct(QA, tools=[weather])


class TestReActOfNativeCalls(TestReAct):
    def respond(self, messages):
        done = messages[-1].role == "tool"
        call = ("finish", {"answer": "It rains."}) if done else ("weather", {"town": "Paris"})
        return lm.Completion((lm.ToolCall("1", *call),), lm.Usage(calls=1))

    def make(self):
        return nn.ReAct(QA, tools=[weather], native=True)


class TestReActWithWordsBesideItsCalls(TestReActOfNativeCalls):
    def respond(self, messages):
        calls = super().respond(messages).tool_calls
        said = (lm.ReasoningPart("It may rain.", "seal"), lm.TextPart("I look it up."), *calls)
        return lm.Completion(said, lm.Usage(calls=1))


def wrote(code):
    """A reply of a module that writes code, as the chat adapter reads it."""
    return f"[[ ## thought ## ]]\nI compute it.\n\n[[ ## code ## ]]\n{code}"


class TestProgramOfThought(ModuleContract):
    calls = 2  # a program that fails, and one that does not
    blamed = ("step.instruction",)

    def respond(self, messages):
        mended = messages[-1]["content"].startswith("The code failed")
        return wrote("submit(answer=str(6 * 7))" if mended else "submit(answer=str(6 * x))")

    def make(self):
        return nn.ProgramOfThought(QA)


class TestProgramOfThoughtThatAnswers(ModuleContract):
    calls = 2
    blamed = ("step.instruction", "answer.instruction")

    def respond(self, messages):
        if "[[ ## output ## ]]" in messages[-1]["content"]:
            return "[[ ## answer ## ]]\nIt is 42."
        return wrote("print(6 * 7)")

    def make(self):
        return nn.ProgramOfThought(QA, answer=True)


class TestCodeAct(ModuleContract):
    calls = 2
    blamed = ("step.instruction",)

    def respond(self, messages):
        done = messages[-1]["content"].startswith("The code ran")
        return wrote("submit(answer=said)" if done else "said = weather('Paris')\nprint(said)")

    def make(self):
        return nn.CodeAct(QA, tools=[weather])


class TestRLM(ModuleContract):
    calls = 5  # two steps and three queries
    blamed = ("step.instruction", "sub.instruction")

    def respond(self, messages):
        if "[[ ## query ## ]]" in messages[-1]["content"]:
            return "[[ ## answer ## ]]\nParis"
        if messages[-1]["content"].startswith("The code ran"):
            return wrote("submit(answer=llm_query('Which town do these name? ' + repr(named)))")
        return wrote("named = llm_query_batched(['A town? ' + part for part in question.split('is')])\nprint(named)")

    def make(self):
        return nn.RLM(QA)


class TestRLMWithTools(ModuleContract):
    blamed = ("step.instruction", "tools.weather.description", "tools.weather.arguments.town")

    def respond(self, messages):
        return wrote("submit(answer=weather('Paris'))")

    def make(self):
        return nn.RLM(QA, tools=[weather], describe=True)


class TestSequential(ModuleContract):
    calls = 2
    blamed = ("draft.instruction", "answer.instruction")

    def make(self):
        return nn.Sequential({"draft": nn.Predict("question -> draft"), "answer": nn.Predict("draft -> answer")})


class TestOp(ModuleContract):
    calls = 0
    blamed = ("description",)

    def inputs(self):
        return {"town": "Paris"}

    def make(self):
        return nn.op(weather, trainable=True)


class TestOpOfACoroutine(TestOp):
    def make(self):
        return nn.op(weather_later, trainable=True)


async def weather_later(town: str) -> str:
    """The weather in a town."""
    return weather(town)


class TestRetrieve(ModuleContract):
    calls = 0

    def inputs(self):
        return {"query": "the capital of France"}

    def make(self):
        return nn.Retrieve(["Paris is the capital of France.", "Rome is the capital of Italy."], k=1)


class TestRetrieveWithARanker(TestRetrieve):
    calls = 1
    blamed = ("rerank.instruction",)

    def answers(self):
        return {"ranking": "[2, 1]"}

    def make(self):
        from promptgrad import retrieve

        passages = retrieve.BM25(["Paris is the capital of France.", "Lyon is in France, whose capital it is not."])
        return nn.Retrieve(
            retrieve.Rerank(passages, nn.Predict("query, passages: list[str] -> ranking: list[int]")), k=1
        )


class TestSynthesizer(ModuleContract):
    calls = (2, 1 + 3 * 2)  # the situations; at most three times n / batch

    def inputs(self):
        return {"seeds": [{"question": "Which town is the capital of France?", "answer": "Paris"}], "n": 3}

    def answers(self):
        def written(inputs):
            wanted = f"{inputs['aspect']} {len(inputs['written']) * 'x'}"
            return f'[{{"question": "What of {wanted} in {hash_of(wanted)}?", "answer": "Rome"}}]'

        return {"aspects": '["rivers", "mountains"]', "new_examples": written}

    def make(self):
        return nn.Synthesizer(QA, aspects=2, difficulty="easy", batch=2)


def hash_of(text):
    """Letters that differ from text to text."""
    return "".join(chr(97 + ord(letter) * 7 % 26) for letter in text) * 2


class TestModuleList(ModuleContract):
    called = False

    def make(self):
        return nn.ModuleList([nn.Predict(QA), nn.ChainOfThought(QA)])


class TestModuleDict(ModuleContract):
    called = False

    def make(self):
        return nn.ModuleDict({"one": nn.Predict(QA), "two": nn.ChainOfThought(QA)})


class TestParameterList(ModuleContract):
    called = False

    def make(self):
        return nn.ParameterList([nn.Parameter("Be brief."), nn.Parameter("Be kind.")])


class TestParameterDict(ModuleContract):
    called = False

    def make(self):
        return nn.ParameterDict({"tone": nn.Parameter("Be kind.")})


def test_every_public_module_passes_the_suite_and_says_what_it_costs():
    """A new class in `nn.__all__` needs a class here or in the criteria's file; nothing is left out."""
    from tests.nn import test_criteria_contract

    public = {
        made for name in nn.__all__ if isinstance(made := getattr(nn, name), type) and issubclass(made, nn.Module)
    } - {nn.Module}
    suites = {
        suite
        for namespace in (globals(), vars(test_criteria_contract))
        for name, suite in namespace.items()
        if name.startswith("Test") and issubclass(suite, ModuleContract)
    }
    covered = {type(suite().make()) for suite in suites}
    assert sorted(made.__name__ for made in public - covered) == []
    assert len(suites) >= len(public)
    plain = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
    silent = [made.__name__ for made in public if made not in plain and "Cost:" not in (made.__doc__ or "")]
    assert silent == []
