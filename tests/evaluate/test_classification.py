"""Figures of labels against scikit-learn."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from tests.evaluate.conftest import figure_of, measured, outcomes_of

from tunesmith.evaluate.classification import (
    auc,
    calibration_statistics,
    classification_over,
    classification_statistics,
    confusion,
    reliability,
)

pairs = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["a", "b", "c", "e", "no label"])), min_size=1, max_size=40)


@given(pairs)
def test_all_figures_equal_those_of_scikit_learn(rows: list[tuple[str, str]]) -> None:
    wanted, said = [row[0] for row in rows], [row[1] for row in rows]
    found = measured(classification_statistics, said, wanted)
    expected = {"accuracy": accuracy_score(wanted, said)}
    for mean in ("macro", "micro", "weighted"):
        for name, function in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
            expected[f"{name}_{mean}"] = function(wanted, said, average=mean, zero_division=0)
    labels = sorted({*wanted, *said})
    by_class = f1_score(wanted, said, average=None, labels=labels, zero_division=0)
    expected |= {f"f1:{label}": value for label, value in zip(labels, by_class, strict=True)}
    assert found == pytest.approx({name: 100 * value for name, value in expected.items()}, abs=1e-9)
    table = confusion(wanted, answers=said)
    assume(len(labels) > 1)  # of one scikit-learn warns
    assert table.counts.tolist() == confusion_matrix(wanted, said, labels=list(table.labels)).tolist()


@given(pairs, st.data())
def test_arms_that_answer_with_other_labels_share_one_table_and_keep_their_figures(
    rows: list[tuple[str, str]], data: st.DataObject
) -> None:
    wanted, said = [row[0] for row in rows], [row[1] for row in rows]
    other = data.draw(st.lists(st.sampled_from(["a", "b", "no", "none", "nothing"]), min_size=len(rows), max_size=len(rows)))
    metric = classification_over([outcomes_of(said, wanted), outcomes_of(other, wanted)])
    tables = [metric(outcomes_of(answers, wanted))["f1_macro"].rows for answers in (said, other)]
    assert tables[0].shape == tables[1].shape
    for answers in (said, other):
        assert measured(metric, answers, wanted) == pytest.approx(measured(classification_statistics, answers, wanted), abs=1e-9)


def test_blanks_around_a_label_do_not_count_and_its_case_does() -> None:
    assert measured(classification_statistics, [" refund\n", "Refund"], ["refund", "refund"])["accuracy"] == 50


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.2, 0.9]), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40))
def test_the_area_under_the_roc_curve_counts_ties_half_and_takes_weights(rows: list[tuple[float, bool, int]]) -> None:
    scores, positives, weights = (list(column) for column in zip(*rows, strict=True))
    assume(0 < sum(positives) < len(positives))
    assert auc(scores, positives=positives) == pytest.approx(roc_auc_score(positives, scores), abs=1e-12)
    held = np.array(weights, float)
    assume(held[np.array(positives)].sum() and held[~np.array(positives)].sum())
    found = auc(scores, positives=positives, weights=np.stack([held, np.ones(len(held))]))
    assert found == pytest.approx(
        [roc_auc_score(positives, scores, sample_weight=held), roc_auc_score(positives, scores)], abs=1e-12
    )


def test_calibration_error_and_brier_score_by_hand() -> None:
    # Two rows in the bin of 0.8 with one hit, one row in that of 0.6 with a hit: (2 |0.8 - 0.5| + 1 |0.6 - 1|) / 3.
    rows = [{"a": 0.8, "b": 0.2}, {"a": 0.8, "b": 0.2}, {"a": 0.4, "b": 0.6}]
    found = calibration_statistics(rows, references=["a", "b", "b"])
    assert figure_of(found["ece"]) == pytest.approx(100 * (2 * 0.3 + 0.4) / 3)
    # Over two classes the sum is twice scikit-learn's score of one.
    expected = 2 * brier_score_loss([1, 0, 0], [0.8, 0.8, 0.4])
    assert figure_of(found["brier"]) == pytest.approx(100 * expected)
    table = reliability([0.8, 0.8, 0.6, 1.0], hits=[True, False, True, True])
    assert table == [(0.6, 1.0, 1), (0.8, 0.5, 2), (1.0, 1.0, 1)]
