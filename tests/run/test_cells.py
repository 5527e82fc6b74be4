from promptgrad.run import Cell, CellStore, value_digest


def state(values):
    return lambda path: value_digest(values[path]) if path in values else None


def cell(values, reads, score, replicate=0):
    return Cell("e1", replicate, score, reads={path: value_digest(values[path]) for path in reads})


def test_a_cell_fits_while_everything_it_read_is_the_same():
    store = CellStore()
    values = {"route.instruction": "a", "math.instruction": "b", "law.instruction": "c"}
    store.put(cell(values, ["route.instruction", "math.instruction"], 1.0), lm="m", source="s")
    untouched = {**values, "law.instruction": "changed"}
    touched = {**values, "math.instruction": "changed"}
    assert store.get("e1", state(untouched), lm="m", source="s").score == 1.0
    assert store.get("e1", state(touched), lm="m", source="s") is None
    assert store.get("e1", state({"route.instruction": "a"}), lm="m", source="s") is None
    assert (store.hits, store.misses) == (1, 2)


def test_example_replicate_lm_and_source_are_part_of_the_key():
    store = CellStore()
    values = {"p": "a"}
    store.put(cell(values, ["p"], 1.0), lm="m", source="s")
    assert store.get("e2", state(values), lm="m", source="s") is None
    assert store.get("e1", state(values), replicate=1, lm="m", source="s") is None
    assert store.get("e1", state(values), lm="n", source="s") is None
    assert store.get("e1", state(values), lm="m", source="t") is None


def test_cells_of_several_candidates_live_side_by_side_and_the_same_is_replaced():
    store = CellStore()
    for text, score in [("a", 0.0), ("b", 1.0), ("a", 0.5)]:
        store.put(cell({"p": text}, ["p"], score))
    assert len(store) == 2
    assert store.get("e1", state({"p": "a"})).score == 0.5
    assert store.get("e1", state({"p": "b"})).score == 1.0
