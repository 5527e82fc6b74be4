import asyncio
import copy
import json
import pickle

import pytest

import promptgrad as pg
from promptgrad import lm, metrics, nn, optim, retrieve
from promptgrad.autograd import edges, graph
from promptgrad.data import Example
from promptgrad.errors import DataError, InputError
from promptgrad.evaluation import source_digest
from promptgrad.testing import Fields
from promptgrad.testing.modules import ModuleContract

RIVERS = [
    {"id": "seine", "text": "The Seine flows through Paris to the sea."},
    {"id": "tiber", "text": "The Tiber flows through Rome to the sea."},
    {"id": "danube", "text": "The Danube flows through Vienna to the Black Sea."},
]


class MultiHop(nn.Module):
    def __init__(self, index, hops=2):
        super().__init__()
        self.query = nn.ChainOfThought("question, notes: list[str] -> query")
        self.search = nn.Retrieve(index, k=3)
        self.answer = nn.ChainOfThought("question, notes: list[str] -> answer")
        self.hops = hops

    def forward(self, question):
        notes = []
        for _ in range(self.hops):
            notes += self.search(self.query(question=question, notes=notes).query)
        return self.answer(question=question, notes=notes)


class Rag(nn.Module):
    def __init__(self, index, k=2):
        super().__init__()
        self.ask = nn.Predict("question -> query")
        self.search = nn.Retrieve(index, k=k)
        self.answer = nn.Predict("notes: list[str] -> answer")

    def forward(self, question):
        return self.answer(notes=self.search(self.ask(question=question).query))


def answers(query="rome", **more):
    return lm.FunctionLM(Fields("Paris", query=query, reasoning="as it says", **more))


class Scripted:
    """Blames everything it is asked about."""

    async def critique(self, failure):
        return {target.name: f"{target.name}: {' & '.join(failure.feedback)}" for target in failure.targets}


EXAMPLE = Example(question="Which river is in Rome?", answer="Tiber", sources=["tiber"]).with_inputs("question")


def loss_of(program, critic=True):
    wrong = nn.MetricLoss(
        lambda example, output: pg.Score(0.0, feedback="wrong"), **({"critic": Scripted()} if critic else {})
    )
    return wrong(program.map([EXAMPLE]), [EXAMPLE])


def said(parameter):
    return [] if parameter.grad is None else [critique.text for critique in parameter.grad.critiques]


def test_what_was_found_and_what_was_lacking_reach_the_query():
    program = Rag(retrieve.BM25(RIVERS)).to(answers())
    loss = loss_of(program)
    assert [edge.kind for edge in edges(loss.rows[0].tape)] == ["exact"] * 3
    assert [repr(node) for node in graph(loss).nodes] == [
        "<Predict ask[0]>",
        "<Retrieve search[0]>",
        "<Predict answer[0]>",
    ]
    loss.backward(engine="local")
    assert said(program.ask.instruction) == [
        "instruction: the search for 'rome' did not find what was needed: notes: wrong "
        "(it found 'The Tiber flows through Rome to the sea.')"
    ]
    assert said(program.answer.instruction) == ["instruction: wrong"]


def test_the_joint_critic_sees_the_search():
    program = Rag(retrieve.BM25(RIVERS)).to(answers())
    seen = []

    def critic(messages):
        seen.append(str(messages[-1]["content"]))
        return Fields(
            findings='[{"runs": [1], "parameter": "ask.instruction", "critique": "name the river", "to_blame": true}]'
        )(messages)

    loss = nn.MetricLoss(lambda example, output: pg.Score(0.0, feedback="wrong"), critic=lm.FunctionLM(critic))(
        program.map([EXAMPLE]), [EXAMPLE]
    )
    loss.backward()
    assert said(program.ask.instruction) == ["name the river"]
    assert "The Tiber flows through Rome" in seen[0]


def test_multi_hop_as_the_readme_of_the_design_has_it():
    model = MultiHop(retrieve.BM25(RIVERS)).to(answers())
    loss = loss_of(model)
    assert {edge.kind for edge in edges(loss.rows[0].tape)} == {"exact"}
    loss.backward(engine="local")
    assert len(said(model.query.instruction)) == 2  # both hops
    assert "did not find what was needed" in said(model.query.instruction)[0]
    report = pg.evaluate(model, [EXAMPLE], metric=metrics.exact_match(field="answer"))
    assert report.score == 0.0
    assert list(dict(model.named_parameters())) == list(dict(MultiHop([]).named_parameters()))


def test_an_auxiliary_loss_judges_the_search():
    program = Rag(retrieve.BM25(RIVERS)).to(answers("paris"))
    outputs = program.map([EXAMPLE])
    loss = nn.AuxLoss("search", metrics.recall_at(3, field="sources"))(outputs, [EXAMPLE])
    assert loss.item() == 1.0
    loss.backward(engine="local", critic=Scripted())
    (heard,) = said(program.ask.instruction)
    assert "the search for 'paris' did not find what was needed: not among the first 3 found: tiber" in heard


def test_plain_and_awaited_searches_are_the_same():
    search = nn.Retrieve(RIVERS, k=2)
    called = search("flows to the sea")
    assert [p.id for p in called] == ["seine", "tiber"]
    assert [p.id for p in asyncio.run(search.acall("flows to the sea"))] == ["seine", "tiber"]
    assert [p.id for p in search("flows", k=1)] == ["seine"]
    assert all(type(p) is retrieve.Passage and p.grad_fn is None for p in called)
    rows = search.map([{"query": "rome"}, {"query": "vienna"}])
    assert [[p.id for p in row] for row in rows] == [["tiber"], ["danube"]]
    assert search("") == []


def test_filters_of_the_module_and_of_a_call():
    passages = [{"text": "a red boat", "year": 2020}, {"text": "a red car", "year": 2021}]
    search = nn.Retrieve(retrieve.BM25(passages), filter={"year": 2021})
    assert search("red") == ["a red car"]
    assert search("red", filter={"year": 2020}) == ["a red boat"]


def test_a_function_is_an_index():
    def find(query, k):
        return [{"text": f"{query} {place}", "id": f"p{place}", "score": 1 / (1 + place)} for place in range(9)]

    async def later(query, k):
        await asyncio.sleep(0)
        return [f"{query} {place}" for place in range(k)]

    found = nn.Retrieve(find, k=2)("boat")
    assert [(p, p.id, p.score) for p in found] == [("boat 0", "p0", 1.0), ("boat 1", "p1", 0.5)]
    assert nn.Retrieve(later, k=2)("boat") == ["boat 0", "boat 1"]
    program = Rag(later).to(answers())
    loss = loss_of(program)
    loss.backward(engine="local")
    assert "(it found 'rome 0'; 'rome 1')" in said(program.ask.instruction)[0]
    with pytest.raises(TypeError, match="returns a list of passages, not str 'boat'"):
        nn.Retrieve(lambda query, k: query)("boat")
    with pytest.raises(DataError, match="passage 0 is of type int"):
        nn.Retrieve(lambda query, k: [1])("boat")


def test_the_number_of_passages_is_searched_and_saved():
    program = Rag(retrieve.BM25(RIVERS), k=pg.Choice([1, 2, 3])).to(answers("sea"))
    assert len(program.search("sea")) == 1
    program.search.k.data = 3
    state = json.loads(json.dumps(program.state_dict()))
    other = Rag(retrieve.BM25(RIVERS), k=pg.Choice([1, 2, 3]))
    other.load_state_dict(state)
    assert len(other.search("sea")) == 3
    assert "k=3 of" in repr(other.search)
    found = optim.Auto(program.parameters()).param_groups
    assert any(p is program.search.k for group in found for p in group["params"])


def test_a_reranker_is_a_part_of_the_program_and_hears_what_was_put_first():
    look = nn.Predict("query, passages: list[str] -> ranking: list[int]")
    program = Rag(retrieve.Rerank(retrieve.BM25(RIVERS), look, by="ranking"), k=1).to(
        answers("sea", ranking="[3, 1, 2]")
    )
    assert "search.rerank.instruction" in dict(program.named_parameters())
    assert program.search("sea") == [RIVERS[2]["text"]]
    loss = loss_of(program)
    assert {edge.kind for edge in edges(loss.rows[0].tape)} == {"exact"}
    loss.backward(engine="local")
    assert "those put first were not what was needed: notes: wrong" in said(look.instruction)[0]
    assert any("the search for 'sea' did not find" in text for text in said(program.ask.instruction))


def test_a_search_that_fails_is_an_error_row_and_blames_its_query():
    def find(query, k):
        raise ConnectionError("no index")

    program = Rag(find).to(answers())
    loss = loss_of(program)
    assert len(loss.errors) == 1
    loss.backward(engine="local")
    assert "search failed with ConnectionError: no index, given query='rome'" in said(program.ask.instruction)[0]


def test_a_step_makes_better_queries_of_what_was_found_and_lacking():
    """Scripted: the program asks for the town until its instruction says that it should not."""
    towns = {"Rome": "Tiber", "Paris": "Seine", "Vienna": "Danube"}
    index = retrieve.BM25([f"{river} is a river of {town}" for town, river in towns.items()])

    def answer(messages):
        asked, text = str(messages[0].content), str(messages[-1].content)
        if "notes" in asked:
            river = next((river for river in towns.values() if river in text), "unknown")
            return f"[[ ## answer ## ]]\n{river}"
        town = next(town for town in towns if town in text)
        return f"[[ ## query ## ]]\n{town if 'name the town' in asked else 'which river'}"

    shown = []

    def writer(messages):
        shown.append(str(messages[-1].content))
        return "[[ ## new_instruction ## ]]\nWrite a query, and name the town in it."

    program = Rag(index, k=1).to(lm.FunctionLM(answer))
    data = [Example(question=f"What flows through {t}?", answer=r).with_inputs("question") for t, r in towns.items()]
    criterion = nn.MetricLoss(metrics.exact_match, critic=Scripted())
    step = optim.TGD(program.ask.parameters(), lm=lm.FunctionLM(writer))
    losses = []
    for _ in range(2):
        step.zero_grad()
        loss = criterion(program.map(data), data)
        losses.append(loss.item())
        loss.backward(engine="local")
        if loss.item():
            step.step()
    assert losses == pytest.approx([2 / 3, 0.0])
    assert "the search for 'which river' did not find what was needed" in shown[0]
    assert "it found 'Tiber is a river of Rome'" in shown[0]


def test_results_are_used_again_only_with_the_same_index(tmp_path):
    def digest(index):
        return source_digest(Rag(index))

    def dense(passages):
        return retrieve.Dense(passages, nn.ngrams)

    for make in (
        retrieve.BM25,
        dense,
        lambda passages: retrieve.Hybrid([retrieve.BM25(passages), dense(passages)]),
        lambda passages: retrieve.Rerank(retrieve.BM25(passages), nn.Predict("query, passage -> score: float")),
    ):
        index, first = make(RIVERS), digest(make(RIVERS))
        assert digest(index) == first
        if not isinstance(index, retrieve.Rerank):
            index.search("rome")
            index.save(tmp_path)
            assert digest(retrieve.load(tmp_path, embedder=nn.ngrams)) == digest(index) == first
        others = [make([*RIVERS, "more"]), make([*RIVERS[:2], {**RIVERS[2], "text": "other"}]), make(RIVERS[::-1])]
        assert len({first, *map(digest, others)}) == 4
    assert digest(retrieve.BM25(RIVERS, k1=1.2)) != digest(retrieve.BM25(RIVERS))


def test_copies_share_the_index():
    search = nn.Retrieve(retrieve.BM25(RIVERS))
    assert copy.deepcopy(search).index is search.index
    assert pickle.loads(pickle.dumps(search))("rome") == search("rome")
    assert repr(search) == "Retrieve(k=3, index=BM25(3 passages, 10 words, k1=1.5, b=0.75))"


def test_what_is_no_search_is_refused():
    with pytest.raises(TypeError, match="Retrieve takes an index"):
        nn.Retrieve(3)
    with pytest.raises(TypeError, match="let your function filter"):
        nn.Retrieve(lambda query, k: [], filter={"a": 1})
    with pytest.raises(ValueError, match="at least 1, not 0"):
        nn.Retrieve([], k=0)
    with pytest.raises(TypeError, match="a whole number, not 'many'"):
        nn.Retrieve([], k=pg.Choice(["many", 3]))
    with pytest.raises(InputError, match="one at a time"):
        nn.Retrieve([])(["a", "b"])


class TestContractOfRetrieve(ModuleContract):
    calls = 0

    def make(self):
        return nn.Retrieve(retrieve.BM25(RIVERS))

    def inputs(self):
        return {"query": "the sea at Rome"}


class TestContractOfASearchInAProgram(ModuleContract):
    calls = 2
    blamed = ("ask.instruction", "answer.instruction")

    def make(self):
        return Rag(retrieve.BM25(RIVERS))

    def answers(self):
        return {"query": "rome", "answer": "Tiber"}


class TestContractOfRerank(ModuleContract):
    calls = 1
    blamed = ("rerank.instruction",)

    def make(self):
        look = nn.Predict("query, passages: list[str] -> ranking: list[int]")
        return nn.Retrieve(retrieve.Rerank(retrieve.BM25(RIVERS), look, by="ranking"), k=2)

    def inputs(self):
        return {"query": "the sea at Rome"}

    def answers(self):
        return {"ranking": "[2, 1]"}
