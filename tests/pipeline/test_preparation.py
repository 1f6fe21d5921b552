from tunesmith.data import DataConfig, SourceConfig
from tunesmith.pipeline.preparation import source_names


def test_sources_are_called_by_their_paths_and_equal_ones_bear_a_number() -> None:
    paths = ("data/a.jsonl", "/home/lisa/a.jsonl", "~/b.csv", "data/a.jsonl", "a.jsonl", "data/a.jsonl")
    config = DataConfig(sources=tuple(SourceConfig(path=path) for path in paths))
    assert source_names(config) == ("data/a.jsonl", "a.jsonl", "b.csv", "data/a.jsonl (2)", "a.jsonl (2)", "data/a.jsonl (3)")
