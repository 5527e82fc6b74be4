"""The simulated worlds: seeds reproduce, students obey, learners conclude what a prompt shows, whoever wrote it."""

import dataclasses
import json
import os
import random
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import promptgrad as pg

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
CAPTURED = json.loads((FOLDER / "worlds" / "prompts.json").read_text())
OF_THE_PEERS = ("gepa", "gepa-package", "mipro-observations", "mipro-proposal", "textgrad-optimizer")


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def policy():
    from worlds.policy import PolicyWorld

    return PolicyWorld(CAPTURED["seed"], test=300)


def share_right(world, text):
    """The share of fresh tickets that the rules in a text get right."""
    from worlds._rules import decide, read
    from worlds._tickets import find

    rules = read(text)
    rows = world.rows["test"]
    return sum(decide(rules, find(row["ticket"])[0][0]) == row["code"] for row in rows) / len(rows)


def ask(url, model, messages, **config):
    body = json.dumps({"model": model, "messages": messages, **config}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)["choices"]


# -- W2: the policy -----------------------------------------------------------------------------------------------


def test_a_seed_gives_one_world_and_another_seed_another():
    from worlds import make

    one, same, other = make("W2", 1000), make("W2", 1000), make("W2", 1001)
    assert one.rows == same.rows
    assert one.policy == same.policy
    assert one.rows != other.rows
    assert len(one.test) == 1000
    everything = [row["ticket"] for part in one.rows.values() for row in part]
    assert len(set(everything)) == len(everything)


def test_a_ticket_says_what_it_was_drawn_from():
    from worlds import _tickets

    rng = random.Random(0)
    tickets = [_tickets.draw(number, rng) for number in range(200)]
    text = "\n".join(_tickets.write(ticket, rng) for ticket in tickets)
    assert [found for found, _, _ in _tickets.find(text)] == tickets


@pytest.mark.parametrize(
    "text",
    [
        "If it is about Vela answer P3. Sums of 250 or more: P1. Several people: P3. Otherwise P2.",
        "1. P3 for Vela, whatever else\n2. answer P1 when the sum is at least 250 dollars\n3. P3 if many are affected\n"
        "4. P2 for everything else",
        "Vela gets P3, at least 250 dollars gets P1, more than one person gets P3, the rest gets P2.",
        "By default P2. Vela: P3. A sum over 249: P1. Two or more people: P3.",
    ],
)
def test_the_student_obeys_a_true_policy_in_any_order_of_words(text):
    from worlds.policy import PolicyWorld

    world = PolicyWorld(1000, test=300)
    assert [str(rule) for rule in world.policy][:2] == [
        "If the ticket is about Vela, answer P3.",
        "If the sum is at least 250 dollars, answer P1.",
    ]
    assert share_right(world, text) == 1.0
    answers = [world.code_for(text, (), row["ticket"]) == row["code"] for row in world.rows["test"]]
    assert 0.92 <= sum(answers) / len(answers) <= 0.999


def test_a_negated_condition_is_read_as_one():
    from worlds._rules import decide, read
    from worlds._tickets import Ticket

    rules = read("If it is not about Orbit and the sum is below 100, answer P1. Else P2.")
    assert decide(rules, Ticket(1, product="Vela", money=90)) == "P1"
    assert decide(rules, Ticket(1, product="Orbit", money=90)) == "P2"
    assert decide(rules, Ticket(1, product="Vela", money=100)) == "P2"


def test_without_rules_the_nearest_demo_decides_and_without_demos_the_student_guesses(policy):
    rows = policy.rows["train"]
    demos = tuple((row["ticket"], row["code"]) for row in rows)
    right = [policy.code_for("Classify the ticket.", demos, row["ticket"]) == row["code"] for row in rows]
    assert sum(right) / len(right) > 0.9  # the demo is the row itself
    fresh = policy.rows["test"]
    shown = [policy.code_for("Classify.", demos, row["ticket"]) == row["code"] for row in fresh]
    guessed = [policy.code_for("Classify.", (), row["ticket"]) == row["code"] for row in fresh]
    assert sum(guessed) / len(fresh) + 0.15 < sum(shown) / len(fresh) < 0.95


@pytest.mark.parametrize("name", OF_THE_PEERS)
def test_the_learner_recovers_the_policy_from_24_rows_in_a_peers_own_prompt(policy, name):
    from worlds import WRITER, Call

    reply = policy.answer(Call(WRITER, CAPTURED["prompts"][name], 0.0, {}))
    assert share_right(policy, reply) > 0.99
    if name == "gepa":
        assert set(json.loads(reply)) == {"new_instruction"}
    if name == "gepa-package":
        assert reply.startswith("```\n")
        assert reply.endswith("\n```")
    if name.startswith("mipro"):
        assert f"[[ ## {'observations' if 'obs' in name else 'proposed_instruction'} ## ]]" in reply
    if name.startswith("textgrad"):
        assert reply.startswith("<IMPROVED_VARIABLE>")
        assert reply.endswith("</IMPROVED_VARIABLE>")


def test_who_sums_up_observations_restates_their_rules(policy):
    from worlds import Call

    said = "These rules fit what is shown. If the tone is worried, answer P1. Otherwise answer P2."
    system = (
        "Your output fields are:\n1. `summary` (str): the summary\nAll interactions will be structured\n[[ ## completed"
    )
    messages = [{"role": "system", "content": system}, {"role": "user", "content": f"[[ ## observations ## ]]\n{said}"}]
    reply = policy.answer(Call("writer", messages, 0.0, {}))
    assert "If the tone is worried, answer P1. Otherwise answer P2." in reply


def shown(world, rows):
    """Rows with their answers, as a learner finds them."""
    from worlds._rows import Shown
    from worlds._tickets import find

    return [Shown(find(row["ticket"])[0][0], frozenset({row["code"]})) for row in rows]


def share_of_rules(world, rules):
    return share_right(world, world.write_instruction(rules))


def test_present_rules_that_fit_the_rows_stay_whatever_the_rows_need(policy):
    from worlds._learner import infer
    from worlds._rules import Rule, read

    rows = shown(policy, policy.rows["train"])
    idle = read("If the tone is polite and the sum is at least 9000 dollars, answer P1.")  # covers no row
    for present in (policy.policy, (*idle, *policy.policy), (*policy.policy[:-1], *idle, policy.policy[-1])):
        assert infer(rows[:3], present) == infer(rows, present) == present
    assert infer(rows[:3], policy.policy, (Rule((), "P5"),), lambda _: 9.0) == policy.policy


def test_what_a_row_contradicts_goes_what_is_missing_is_added_and_the_rest_stays_in_order(policy):
    from worlds._learner import infer
    from worlds._rules import read

    rows = shown(policy, policy.rows["train"][:24])
    first, *others, last = policy.policy
    wrong = read("If the tone is calm, answer P5.")
    idle = read("If the sum is at least 9000 dollars, answer P1.")
    assert infer(rows, (*wrong, first, *others, last)) == policy.policy  # a guess that rows contradict
    revised = infer(rows, (*idle, *others, last))  # the first rule is missing, and takes precedence over others
    assert set(idle) | set(others) <= set(revised)
    assert [rule for rule in revised if rule in (*idle, *others)] == [*idle, *others]
    assert share_of_rules(policy, revised) > 0.95
    moved = infer(rows, (*others, first, last))  # it stands too late
    assert share_of_rules(policy, moved) == share_of_rules(policy, policy.policy)


def test_rows_that_no_list_fits_cost_no_present_rule(policy):
    from worlds._learner import infer
    from worlds._rows import Shown

    rows = shown(policy, policy.rows["train"][:24])
    again = [Shown(row.ticket, frozenset({"P5"})) for row in rows[:2]]  # the same tickets, another answer
    assert infer([*rows, *again], policy.policy) == policy.policy


def test_revising_by_three_rows_climbs_where_only_what_helps_is_kept():
    from worlds._learner import infer
    from worlds._rules import decide
    from worlds.policy import PolicyWorld

    before, after = [], []
    for seed in range(1000, 1008):
        world = PolicyWorld(seed, test=300)
        train, val = shown(world, world.rows["train"]), shown(world, world.rows["val"])

        def wrong(rules, rows):
            return sum(decide(rules, row.ticket) != row.label for row in rows)

        rules, rng = infer(train[:8]), random.Random(seed)
        before.append(share_of_rules(world, rules))
        for _ in range(20):
            rows = rng.sample(train, 3)
            revised = infer(rows, rules)
            if wrong(revised, rows) < wrong(rules, rows) and wrong(revised, val) <= wrong(rules, val):
                rules = revised
        after.append(share_of_rules(world, rules))
    assert sum(after) / 8 > sum(before) / 8 + 0.1


def test_a_proposal_restates_the_last_rules_of_a_summary_that_its_demos_do_not_contradict(policy):
    """MIPROv2 shows its proposer a summary of all rows, and a few demos that may all have one answer."""
    from worlds import WRITER, Call

    messages = [dict(message) for message in CAPTURED["prompts"]["mipro-proposal"]]
    head, rest = messages[1]["content"].split("[[ ## task_demos ## ]]\n")
    rows, tail = rest.split("\n\n[[ ## basic_instruction", 1)
    label = policy.rows["train"][0]["code"]
    demos = [each for each in rows.split("\n\n") if f"Code: {label}" in each][:3]
    said = f"If it came by mail, answer P5. Otherwise answer P5. {' '.join(map(str, policy.policy))}"  # seen later
    summary = f"[[ ## dataset_description ## ]]\n{said}\n\n"
    content = "[[ ## task_demos ## ]]\n".join([summary + head, "\n\n".join(demos)])
    messages[1]["content"] = f"{content}\n\n[[ ## basic_instruction{tail}"
    assert share_right(policy, policy.answer(Call(WRITER, messages, 0.0, {}))) == 1.0


def test_a_critic_says_what_a_textgrad_prompt_shows_of_one_row(policy):
    from worlds import CRITIC, Call

    said = policy.answer(Call(CRITIC, CAPTURED["prompts"]["textgrad-critic"], 0.0, {}))
    assert said.startswith(("The right answer for this ticket is P", "The answer P"))
    output = policy.answer(Call(CRITIC, CAPTURED["prompts"]["textgrad-output"], 0.0, {}))
    assert output.startswith(("The right answer is P", "The answer P"))


@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_the_learner_recovers_the_policy_in_our_prompts_and_writes_every_field(policy, adapter):
    class Propose(pg.Signature):
        """Write a better instruction."""

        instruction: str = pg.Input()
        rows: list[dict] = pg.Input()
        analysis: str = pg.Output(desc="which property separates the right answers")
        new_instruction: str = pg.Output()

    shown = []
    for row in policy.rows["train"][:24]:
        answer = policy.code_for(policy.start, (), row["ticket"])
        score, feedback = policy.judge(row, answer)
        shown.append({"inputs": {"ticket": row["ticket"]}, "outputs": {"code": answer}, "score": score})
        shown[-1] |= {"feedback": feedback}
    with policy.serve() as url:
        writer = pg.nn.Predict(Propose, lm=policy.lm(url, "writer"), adapter=adapter)
        reply = writer(instruction=policy.start, rows=shown)
    assert share_right(policy, str(reply.new_instruction)) > 0.99
    assert "These rules fit" in reply.analysis


@dataclasses.dataclass
class Finding:
    run: int
    parameter: str
    critique: str


def test_a_critic_lists_a_finding_for_each_run_that_failed(policy):
    class Criticise(pg.Signature):
        """Say what is wrong."""

        parameters: dict[str, str] = pg.Input()
        runs: list[dict] = pg.Input()
        findings: list[Finding] = pg.Output(desc="one for each parameter that is to blame for a run")

    runs, wrong = [], []
    for number, row in enumerate(policy.rows["train"][:6], 1):
        answer = policy.code_for(policy.start, (), row["ticket"])
        score, feedback = policy.judge(row, answer)
        wrong += [number] if score < 1 else []
        call = {"call": "step", "inputs": {"ticket": row["ticket"]}, "outputs": {"code": answer}}
        runs.append({"run": number, "calls": [call], "feedback": feedback})
    with policy.serve() as url:
        critic = pg.nn.Predict(Criticise, lm=policy.lm(url, "critic"))
        findings = critic(parameters={"instruction": policy.start}, runs=runs).findings
    assert wrong
    assert [finding.run for finding in findings] == wrong
    assert {finding.parameter for finding in findings} == {"instruction"}
    assert all(finding.critique.startswith("The right answer for this ticket is P") for finding in findings)


@dataclasses.dataclass
class Shared:
    runs: list[int]
    parameter: str
    to_blame: bool
    critique: str


def test_a_finding_that_may_name_several_runs_names_all_that_say_the_same(policy):
    class Criticise(pg.Signature):
        """Say what is wrong."""

        parameters: dict[str, str] = pg.Input()
        runs: list[dict] = pg.Input()
        findings: list[Shared] = pg.Output()

    row = policy.rows["train"][0]
    wrong = next(code for code in policy.codes if code != row["code"])
    run = {"inputs": {"ticket": row["ticket"]}, "outputs": {"code": wrong}, "feedback": f"expected {row['code']}"}
    fine = {"inputs": {"ticket": row["ticket"]}, "outputs": {"code": row["code"]}, "feedback": "right"}
    with policy.serve() as url:
        critic = pg.nn.Predict(Criticise, lm=policy.lm(url, "critic"))
        (finding,) = critic(parameters={"instruction": policy.start}, runs=[run, fine, run]).findings
    assert (finding.runs, finding.parameter, finding.to_blame) == ([1, 3], "instruction", True)


def test_a_writer_that_is_asked_for_edits_replaces_the_text(policy):
    @dataclasses.dataclass
    class Edit:
        op: str
        anchor: str
        text: str

    class Amend(pg.Signature):
        """Edit the instruction."""

        instruction: str = pg.Input()
        rows: list[dict] = pg.Input()
        hunks: list[Edit] = pg.Output()

    rows = policy.rows["train"][:24]
    with policy.serve() as url:
        (edit,) = pg.nn.Predict(Amend, lm=policy.lm(url, "writer"))(instruction=policy.start, rows=list(rows)).hunks
    assert (edit.op, edit.anchor) == ("replace", policy.start)
    assert share_right(policy, edit.text) > 0.99


def test_the_program_starts_low_and_the_true_policy_makes_it_right(policy):
    with (server := policy.serve()) as url:
        program = policy.program(url)
        before = pg.evaluate(program, policy.test[:100], metric=policy.metric).score
        program.instruction.data = policy.write_instruction(policy.policy)
        after = pg.evaluate(program, policy.test[:100], metric=policy.metric).score
    assert before < 0.5
    assert after > 0.9
    assert server.counts == {"student": 200}


# -- the server ---------------------------------------------------------------------------------------------------


def test_the_server_counts_each_model_and_refuses_beyond_its_budget(policy):
    messages = [{"role": "system", "content": policy.start}, {"role": "user", "content": policy.train[0].ticket}]
    with (server := policy.serve(budget=4, record=True)) as url:
        assert ask(url, "student", messages)[0]["message"]["content"].startswith("P")
        assert len(ask(url, "student", messages, n=2, temperature=1.0)) == 2
        ask(url, "writer", messages)
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(url, "student", messages)
        refused.value.close()
        assert refused.value.code == 403
    assert dict(server.counts) == {"student": 3, "writer": 1}
    assert server.total == 4
    assert server.refused == 1
    assert [call.temperature for call in server.calls] == [0.0, 1.0, 0.0]


def test_what_is_no_request_for_a_completion_is_told_so(policy):
    with policy.serve() as url:
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(url, "student", "not a list of messages")
        assert refused.value.code == 400
        assert "not a chat completion request" in refused.value.read().decode()
        refused.value.close()


def test_at_temperature_0_replies_are_the_same_and_above_it_each_asking_has_its_own(policy):
    messages = [{"role": "system", "content": "Classify."}, {"role": "user", "content": policy.train[0].ticket}]

    def replies(temperature):
        from worlds.policy import PolicyWorld

        with PolicyWorld(policy.seed).serve() as url:
            return [ask(url, "student", messages, temperature=temperature)[0]["message"]["content"] for _ in range(12)]

    assert len(set(replies(0.0))) == 1
    sampled = replies(1.0)
    assert len(set(sampled)) > 1
    assert replies(1.0) == sampled


# -- W1: items ----------------------------------------------------------------------------------------------------


def share_of_items(world, instruction, demos=(), reasons=False):
    from worlds.items import item_of

    rows = world.rows["test"]
    answers = [world.answer_to(*item_of(row["question"]), instruction, demos, reasons) for row in rows]
    return sum(answer == row["answer"] for answer, row in zip(answers, rows, strict=True)) / len(rows)


def test_planted_phrases_help_decoys_harm_and_everything_at_once_is_worst():
    from worlds.items import PHRASES, ItemWorld

    for seed in (1000, 1001, 1002):
        world = ItemWorld(seed, test=300)
        good = [*world.everywhere, *(phrase for phrase, _ in world.by_topic.values())]
        start = share_of_items(world, world.start)
        assert start < 0.45
        assert share_of_items(world, f"{world.start} {'. '.join(good)}") > 0.8
        assert share_of_items(world, f"{world.start} {'. '.join(world.harmful)}") < start
        assert share_of_items(world, f"{world.start} {'. '.join(PHRASES)}") < start


def test_demos_and_reasoning_matter_as_the_seed_draws():
    from worlds.items import ItemWorld

    gains, reasoned = [], []
    for seed in range(1000, 1012):
        world = ItemWorld(seed, test=300)
        demos = tuple((row["question"], row["answer"]) for row in world.rows["train"][:8])
        start = share_of_items(world, world.start)
        gains.append((world.demo, share_of_items(world, world.start, demos) - start))
        reasoned.append((world.reasoning, share_of_items(world, world.start, (), True) - start))
    assert all(gain > 0.05 for demo, gain in gains if demo > 0)
    assert all(abs(gain) < 0.1 for demo, gain in gains if demo == 0)
    assert {demo > 0 for demo, _ in gains} == {True, False}
    assert all(gain > 0 for weight, gain in reasoned if weight > 0)
    assert all(gain < 0 for weight, gain in reasoned if weight < 0)


def test_the_writer_of_items_uses_the_hints_that_its_prompt_shows():
    from worlds import WRITER, Call
    from worlds.items import ItemWorld, item_of

    gained = []
    for seed in range(1000, 1008):
        world = ItemWorld(seed, test=300)
        shown = []
        for row in world.rows["train"][:24]:
            answer = world.answer_to(*item_of(row["question"]), world.start)
            shown.append({**row, "output": answer, "feedback": world.judge(row, answer)[1]})
        for rows in ([], shown):
            content = f"[[ ## instruction ## ]]\n{world.start}\n\n[[ ## rows ## ]]\n{json.dumps(rows)}"
            ask = "Reply with these fields, each below\n\n[[ ## new_instruction ## ]]\n{text}\n\n[[ ## completed ## ]]"
            messages = [{"role": "system", "content": ask}, {"role": "user", "content": content}]
            reply = world.answer(Call(WRITER, messages, 0.0, {}))
            gained.append(share_of_items(world, reply) - share_of_items(world, world.start))
    blind, informed = gained[::2], gained[1::2]
    assert sum(informed) / 8 > sum(blind) / 8 + 0.15
    assert sum(informed) / 8 > 0.2


def test_the_program_on_items_scores_as_the_model_says():
    from worlds import make

    world = make("W1", 1000, test=60)
    with world.serve() as url:
        score = pg.evaluate(world.program(url), world.test, metric=world.metric).score
        reasons = pg.nn.ChainOfThought("question -> answer", instruction=world.start).to(world.lm(url))
        other = pg.evaluate(reasons, world.test, metric=world.metric).score
    assert score == pytest.approx(share_of_items(world, world.start))
    assert other == pytest.approx(share_of_items(world, world.start, (), True))


# -- W4: two modules ----------------------------------------------------------------------------------------------


def share_of_pipeline(world, instructions):
    from worlds._tickets import find

    right = 0
    for row in world.rows["test"]:
        facts = world.facts(instructions["extract"], (), find(row["ticket"])[0][0])
        right += world.code_for(instructions["decide"], (), facts) == row["code"]
    return right / len(world.rows["test"])


def test_the_fault_lies_where_the_seed_puts_it():
    from worlds.pipeline import PipelineWorld

    faults = set()
    for seed in range(1000, 1006):
        world = PipelineWorld(seed, test=300)
        right, start = world.right(), world.starts
        faults.add(world.fault)
        assert share_of_pipeline(world, right) > 0.9
        assert share_of_pipeline(world, start) < 0.85
        assert (start["decide"] == right["decide"]) == (world.fault == "extract")
        mended = {**start, **{name: right[name] for name in start if world.fault in (name, "both")}}
        assert share_of_pipeline(world, mended) > 0.9
    assert faults == {"extract", "decide", "both"}


def test_naming_every_fact_costs_some_of_them():
    from worlds._tickets import ATTRIBUTES
    from worlds.pipeline import PipelineWorld

    world = PipelineWorld(1000, test=300)
    every = {**world.right(), "extract": world.extract_instruction(ATTRIBUTES)}
    assert share_of_pipeline(world, every) < share_of_pipeline(world, world.right()) - 0.05


@pytest.mark.parametrize(("seed", "blamed"), [(1002, "extract"), (1000, "decide")])
def test_critics_blame_the_module_that_is_at_fault(seed, blamed):
    from worlds.pipeline import PipelineWorld

    world = PipelineWorld(seed)
    parameters = {f"{name}.instruction": text for name, text in world.starts.items()}
    runs, wrong = [], []
    with world.serve() as url:
        program = world.program(url)
        for number, row in enumerate(world.rows["train"], 1):
            facts = str(program.extract(ticket=row["ticket"]).facts)
            code = str(program.decide(facts=facts).code)
            score, feedback = world.judge(row, code)
            wrong += [number] if score < 1 else []
            steps = [{"inputs": {"ticket": row["ticket"]}, "outputs": {"facts": facts}}]
            steps.append({"inputs": {"facts": facts}, "outputs": {"code": code}})
            runs.append({"run": number, "calls": steps, "feedback": feedback})

        class Criticise(pg.Signature):
            """Say what is wrong."""

            parameters: dict[str, str] = pg.Input()
            runs: list[dict] = pg.Input()
            findings: list[Finding] = pg.Output(desc="one for each parameter that is to blame for a run")

        critic = pg.nn.Predict(Criticise, lm=world.lm(url, "critic"))
        findings = critic(parameters=parameters, runs=runs).findings
    assert {finding.run for finding in findings} <= set(wrong)
    at = [finding.parameter == f"{blamed}.instruction" for finding in findings]
    assert sum(at) / len(at) > 0.7


@pytest.mark.parametrize(("seed", "fault"), [(1002, "extract"), (1000, "decide")])
def test_one_reply_blames_the_module_at_fault_and_rewrites_it(seed, fault):
    """In a prompt that shows whole runs and asks for new texts of the parameters that are to blame."""
    from worlds.pipeline import PipelineWorld

    from promptgrad.search import Revise

    world = PipelineWorld(seed, test=300)
    runs = []
    with world.serve() as url:
        program = world.program(url)
        for row in world.rows["train"][:24]:
            facts = str(program.extract(ticket=row["ticket"]).facts)
            code = str(program.decide(facts=facts).code)
            score, feedback = world.judge(row, code)
            steps = [{"call": "extract", "inputs": {"ticket": "= ticket of the run"}, "outputs": {"facts": facts}}]
            steps.append({"call": "decide", "inputs": {"facts": "= facts of extract"}, "outputs": {"code": code}})
            run = {"inputs": {"ticket": row["ticket"]}, "calls": steps, "outputs": {"code": code}}
            runs.append({**run, "expected": {"code": row["code"]}, "score": score, "feedback": feedback})
        shown = {"interfaces": {}, "rules": {}, "attempts": [], "worse": [], "program": "Pipeline", "tip": ""}
        writer = pg.nn.Predict(Revise, lm=world.lm(url, "writer"))
        texts = {f"{name}.instruction": text for name, text in world.starts.items()}
        revised = writer(parameters=texts, runs=sorted(runs, key=lambda run: run["score"]), **shown).revisions
    found = {one.parameter.removesuffix(".instruction"): one.new_text for one in revised}
    assert fault in found
    assert set(found) <= {"extract", "decide"}
    before = share_of_pipeline(world, world.starts)
    assert share_of_pipeline(world, {**world.starts, fault: found[fault]}) > before + 0.1


@pytest.mark.parametrize(("first", "fault"), [(1000, "decide"), (1001, "both")])
def test_tickets_beside_the_facts_tell_a_writer_of_decide_only_what_the_facts_do_not(first, fault):
    from worlds.pipeline import PipelineWorld

    from promptgrad.search import Improve

    def rewritten(world, writer, *, beside):
        rows, program = [], world.program(url)
        for number, row in enumerate(world.rows["train"][:30], 1):
            facts = str(program.extract(ticket=row["ticket"]).facts)
            shown = {"row": number, "inputs": {"facts": facts}, "expected": {"code": row["code"]}}
            rows.append({**shown, "program_inputs": {"ticket": row["ticket"]}} if beside else shown)
        rest: dict = dict.fromkeys(("program", "role", "interface", "tip"), "")
        rest |= {"rules": [], "attempts": [], "worse": []}
        return writer(instruction=world.starts["decide"], rows=rows, **rest).new_instruction

    gains = []
    for seed in range(first, first + 15, 3):
        world = PipelineWorld(seed, test=300)
        assert world.fault == fault
        with world.serve() as url:
            writer = pg.nn.Predict(Improve, lm=world.lm(url, "writer"))
            texts = [{**world.right(), "decide": rewritten(world, writer, beside=beside)} for beside in (False, True)]
        without, beside = (share_of_pipeline(world, each) for each in texts)
        gains.append(beside - without)
    mean = sum(gains) / len(gains)
    assert mean > 0.1 if fault == "both" else abs(mean) < 0.05


def test_extract_gets_what_a_critique_misses_and_a_right_one_gets_worse_without():
    from worlds import WRITER, Call
    from worlds.pipeline import PipelineWorld

    ask = "Reply with these fields, each below\n\n[[ ## new_instruction ## ]]\n{text}\n\n[[ ## completed ## ]]"

    def rewritten(world, instruction, critique):
        content = f"[[ ## instruction ## ]]\n{instruction}\n\n[[ ## critiques ## ]]\n{critique}"
        messages = [{"role": "system", "content": ask}, {"role": "user", "content": content}]
        reply = world.answer(Call(WRITER, messages, 0.0, {}))
        return reply.split("]]\n", 1)[1].split("\n\n[[")[0]

    losses = []
    for seed in (1000, 1003, 1006, 1009):
        world = PipelineWorld(seed, test=300)
        right = world.right()
        short = world.extract_instruction(sorted(world.needed)[1:])
        lost = world.extract_instruction(sorted(world.needed)[:1]).split(" on ")[1].rstrip(".")
        mended = rewritten(world, short, f"The facts do not say {lost}.")
        assert share_of_pipeline(world, {**right, "extract": mended}) > 0.9
        worse = rewritten(world, right["extract"], "Something is wrong.")
        losses.append(share_of_pipeline(world, right) - share_of_pipeline(world, {**right, "extract": worse}))
    assert sum(losses) / len(losses) > 0.03


def test_extract_keeps_what_it_names_and_gets_what_labelled_rows_need():
    """In the prompts of GEPA, whose feedback is on the whole run."""
    from worlds import WRITER, Call
    from worlds.pipeline import PipelineWorld

    losses, gains = [], []
    for seed in (1000, 1002, 1003, 1005, 1006, 1008):
        world = PipelineWorld(seed, test=300)
        right = world.right()

        def revised(instruction, count, world=world):
            rows = []
            for row in world.rows["train"][:count]:
                facts = "State nothing."
                rows.append({"Inputs": {"ticket": row["ticket"]}, "Generated Outputs": {"facts": facts}})
                rows[-1]["Feedback"] = f"expected {row['code']}"
            messages = [dict(message) for message in CAPTURED["prompts"]["gepa"]]
            content = f"[[ ## current_instruction ## ]]\n{instruction}\n\n[[ ## examples_with_feedback ## ]]\n"
            messages[1]["content"] = f"{content}{json.dumps(rows)}"
            return json.loads(world.answer(Call(WRITER, messages, 0.0, {})))["new_instruction"]

        kept = {**right, "extract": revised(right["extract"], 3)}
        losses.append(share_of_pipeline(world, right) - share_of_pipeline(world, kept))
        short = {**right, "extract": world.extract_instruction(sorted(world.needed)[1:])}
        mended = {**right, "extract": revised(short["extract"], 24)}
        gains.append(share_of_pipeline(world, mended) - share_of_pipeline(world, short))
    assert sum(losses) / len(losses) < 0.03
    assert sum(gains) / len(gains) > 0.1


def test_who_observes_rows_of_two_modules_states_their_rules():
    from worlds import Call
    from worlds.pipeline import PipelineWorld

    world = PipelineWorld(CAPTURED["seed"], test=300)
    messages = [dict(message) for message in CAPTURED["prompts"]["mipro-observations"]]
    rows = [{"ticket": row["ticket"], "code": row["code"]} for row in world.rows["train"][:24]]
    messages[1]["content"] = f"[[ ## examples ## ]]\n{rows}"
    assert share_right(world, world.answer(Call("writer", messages, 0.0, {}))) > 0.9


# -- W3: the embedded model -----------------------------------------------------------------------------------------


def test_the_embedded_model_runs_behind_the_server_for_every_framework():
    pytest.importorskip("torch")
    from worlds.embedded import FAMILIES, EmbeddedWorld

    assert len(FAMILIES) >= 8
    world = EmbeddedWorld(1001, test=20)
    with (server := world.serve()) as url:
        program = world.program(url)
        before = pg.evaluate(program, world.test, metric=world.metric).score
        program.instruction.data = world.task.instruction("precise")
        own = [str(program(text=row["text"]).answer) for row in world.rows["test"]]
        chat = pg.nn.Predict("text -> answer", instruction=world.task.instruction("precise"), adapter="chat")
        chat.to(pg.LM("openai/student", base_url=url, api_key="none"))
        others = [str(chat(text=row["text"]).answer) for row in world.rows["test"]]
    assert server.counts == {"student": 60}
    assert before == world.score_of_start(20) < 0.5
    assert others == own
    assert sum(answer == row["answer"] for answer, row in zip(own, world.rows["test"], strict=True)) > 15


def test_a_task_with_too_few_texts_gives_way_to_the_next_of_its_family():
    from worlds.embedded import EmbeddedWorld

    from promptgrad.errors import DataError

    world = EmbeddedWorld(1006)  # a label map; the drawn one has 263 texts left to test on
    assert world.task.family == world.family == "label-map"
    assert [len(world.rows[part]) for part in ("train", "val", "test")] == [40, 40, 1000]
    assert EmbeddedWorld(1006, test=200).task.name != world.task.name
    with pytest.raises(DataError, match="no task of 'label-map' has 9080 different texts"):
        EmbeddedWorld(1006, test=9000)


def test_the_embedded_model_induces_an_instruction_from_rows_in_a_peers_prompt():
    pytest.importorskip("torch")
    from worlds.embedded import EmbeddedWorld

    world = EmbeddedWorld(1001, test=20)
    shown = world.rows["train"][:6]
    rows = [{"Inputs": {"text": row["text"]}, "Generated Outputs": {"answer": "cat"}} for row in shown]
    rows = [{**row, "Feedback": world.judge(each, "cat")[1]} for row, each in zip(rows, shown, strict=True)]
    assert world.shown(json.dumps(rows)) == [(row["text"], "cat", row["answer"]) for row in shown]
    messages = [dict(message) for message in CAPTURED["prompts"]["gepa"]]
    head = messages[1]["content"].split("[{", 1)[0]
    messages[1]["content"] = f"{head}{json.dumps(rows)}\n\nRespond with a JSON object in the following order of fields:"
    with world.serve() as url:
        reply = json.loads(ask(url, "writer", messages)[0]["message"]["content"])
    assert "vehicle" in reply["new_instruction"]


# -- N1 and N2: nothing helps ---------------------------------------------------------------------------------------


def test_in_the_flat_world_every_prompt_is_as_good_and_downhill_every_other_is_worse():
    from worlds import make

    for name, least in (("N1", -0.05), ("N2", 0.02)):
        world = make(name, 1000, test=2000)
        rows = world.rows["test"]

        def score(text, world=world, rows=rows):
            return sum(world.code_for(text, (), row["ticket"]) == row["code"] for row in rows) / len(rows)

        start = score(world.start)
        others = [score(text) for text in ("Be careful.", "Give the code.", world.write_instruction(world.policy))]
        assert 0.55 < start < 0.75
        assert all(start - other > least for other in others)
        if name == "N1":
            assert all(abs(start - other) < 0.05 for other in others)


def test_there_is_no_world_of_another_name():
    from worlds import make

    with pytest.raises(ValueError, match="no world is named 'W9'; there are W1, W2"):
        make("W9", 0)


@pytest.mark.parametrize("name", ["W1", "W4", "N1", "N2"])
def test_every_world_reproduces(name):
    from worlds import make

    one, same, other = make(name, 1000, test=20), make(name, 1000, test=20), make(name, 1001, test=20)
    assert one.rows == same.rows != other.rows
    scores = []
    for world in (one, same):
        with world.serve() as url:
            rows = pg.evaluate(world.program(url), world.test, metric=world.metric)
        scores.append([row.score for row in rows.rows])
    assert scores[0] == scores[1]


ASK = """
import json, sys
from worlds import make
from worlds._server import Call
print(make("W1", 1000).answer(Call("writer", json.load(sys.stdin), 0.0, {})))
"""


def test_a_writer_of_items_replies_alike_in_every_process():
    from worlds.items import PHRASES

    tried = [{"text": ". ".join([*PHRASES][at : at + 6]) + ".", "score": 1 - at / 24, "rows": 40} for at in (0, 6, 12)]
    fields = "[[ ## new_instruction ## ]]\n{text}\n\n[[ ## completed ## ]]"
    system = f"Improve.\n\nReply with these fields, each below its marker:\n\n{fields}"
    user = f"[[ ## instruction ## ]]\nAnswer.\n\n[[ ## attempts ## ]]\n{json.dumps(tried)}"
    messages = json.dumps([{"role": "system", "content": system}, {"role": "user", "content": user}])
    said = [
        subprocess.check_output(
            [sys.executable, "-c", ASK],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=FOLDER,
            input=messages,
            text=True,
        )
        for seed in "1234"
    ]
    assert len(set(said)) == 1
    assert said[0].count(".") > 4
