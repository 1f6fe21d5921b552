"""Licences side by side: what fits, what does not, and what is not known."""

import pytest

from tunesmith.pipeline.licences import fit, known_licence


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("CC BY-SA 4.0", "cc-by-sa-4.0"),
        ("cc_by_4.0", "cc-by-4.0"),
        ("CC0", "cc0-1.0"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        ("CC-BY", None),  # of which version?
        ("CC-BY-4.0 and CC-BY-SA-4.0", None),
        ("public domain", None),  # where?
        ("", None),
        ("ask Bob", None),
    ],
)
def test_a_licence_is_known_by_its_own_name_and_never_guessed(written: str, expected: str | None) -> None:
    assert known_licence(written) == expected


def test_every_known_licence_is_one_that_the_hub_lists() -> None:
    """Beside the identifiers of the page `docs/hub/repositories-licenses` of the hub's documentation (huggingface/hub-docs, 008d54d)."""
    hub = (
        "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0 "
        "artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 "
        "cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 "
        "cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 "
        "etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl "
        "openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license llama2 gemma unknown other"
    )
    from tunesmith.pipeline import licences

    assert set(licences._KIND_OF) <= set(hub.split(" "))


def test_free_and_notice_licences_fit_under_the_bases_own() -> None:
    found = fit("apache-2.0", ["CC0", "CC-BY-4.0"], has_base=True, num_unnamed=0)
    assert found.licence == "apache-2.0"
    assert any("CC-BY-4.0 asks that its notice or its authors be named" in sentence for sentence in found.sentences)


@pytest.mark.parametrize(
    ("base", "data", "said"),
    [
        (None, ["MIT"], "The base names no licence"),
        ("apache-2.0", ["ask Bob"], "What ask Bob allows is not known here"),
        ("my-own", ["MIT"], "What my-own allows is not known here"),
        ("apache-2.0", ["CC-BY-SA-4.0", "GPL-3.0"], "CC-BY-SA-4.0 and GPL-3.0 do not fit"),
        ("apache-2.0", ["CC-BY-SA-4.0", "CC-BY-NC-4.0"], "CC-BY-NC-4.0 and CC-BY-SA-4.0 do not fit"),
        ("llama2", ["GPL-3.0"], "llama2 and GPL-3.0 do not fit"),
        ("apache-2.0", ["CC-BY-ND-4.0"], "may be handed on is doubtful"),
        ("apache-2.0", ["CC-BY-SA-4.0"], "for its owner to say"),
        ("apache-2.0", ["CC-BY-NC-4.0"], "forbids commercial use"),
    ],
)
def test_what_does_not_fit_or_is_not_known_is_said_and_no_licence_is_named(base: str | None, data: list[str], said: str) -> None:
    found = fit(base, data, has_base=True, num_unnamed=0)
    assert found.licence is None
    assert any(said in sentence for sentence in found.sentences), found.sentences


def test_rows_without_a_licence_are_counted_and_none_is_taken_for_them() -> None:
    found = fit("mit", [], has_base=True, num_unnamed=1200)
    assert (found.licence, found.sentences[0]) == (None, "1,200 rows name no licence.")
    assert fit(None, ["MIT"], has_base=False, num_unnamed=0).licence is None
    assert fit("cc-by-sa-4.0", ["CC BY-SA 4.0"], has_base=True, num_unnamed=0).licence == "cc-by-sa-4.0"
