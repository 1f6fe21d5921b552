"""Names of people and places, found by a language model through presidio and spaCy; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from tunesmith.data.clean.find_pii import Span
from tunesmith.errors import MissingExtra

__all__ = ["name_finder"]

_ENTITIES = {"PERSON": "PERSON", "LOCATION": "LOCATION", "NRP": "GROUP"}


def name_finder(model: str) -> Callable[[str], Sequence[Span]]:
    """Load a spaCy model and return what finds names with it.

    Raises:
        MissingExtra: presidio or the model is not installed.
    """
    if find_spec("presidio_analyzer") is None:
        raise MissingExtra(
            "pii: {names: true} needs presidio, which is not installed. Install it: pip install 'tunesmith[presidio]', "
            f"and the language model: python -m spacy download {model}"
        )
    if find_spec(model) is None:
        # presidio would fetch it by itself; nothing is downloaded that was not asked for.
        raise MissingExtra(
            f"pii: {{names: true}} needs the spaCy model {model}, which is not installed. "
            f"Install it: python -m spacy download {model}"
        )
    analyzer: Any = _analyzer(model)

    def find(text: str) -> Sequence[Span]:
        results = analyzer.analyze(text=text, language=model[:2], entities=list(_ENTITIES))
        found: list[Span] = []
        for result in sorted(results, key=lambda result: -result.score):
            if not any(result.start < span.end and span.start < result.end for span in found):
                found.append(Span(result.start, result.end, _ENTITIES[result.entity_type]))
        return sorted(found)

    return find


def _analyzer(model: str) -> Any:
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    language = model[:2]
    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
    engine = NlpEngineProvider(nlp_configuration=settings).create_engine()
    return AnalyzerEngine(nlp_engine=engine, supported_languages=[language])
