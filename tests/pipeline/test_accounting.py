from tunesmith.pipeline import passes_in_words


def passed(sequences: int, tokens: int, epochs: float) -> dict[str, object]:
    return {"sequences": sequences, "tokens": tokens, "supervised": tokens, "epochs": epochs}


def test_each_source_says_how_often_it_is_read_and_one_that_is_not_says_so() -> None:
    sources = {"a": passed(6, 300, 1.5), "b": passed(2, 100, 4.0), "c": passed(0, 0, 0.0)}
    assert passes_in_words(sources) == [
        "a: read 1.5 times, 300 tokens (75%)",
        "b: read 4.0 times, 100 tokens (25%)",
        "c: not read at all",
    ]
    assert passes_in_words({"a": sources["a"]}) == []
