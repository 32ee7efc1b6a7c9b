"""The classifiers of embeddings against scikit-learn itself."""

import numpy as np
import pytest
from sklearn import linear_model, metrics, model_selection, neighbors, pipeline, preprocessing

from eva_coralbay.evaluation.probe import embedding_classifiers
from eva_coralbay.evaluation.probe.embedding_classifiers import Labeled


def _labeled(
    counts: list[int], *, seed: int = 0, per_patient: int = 2, spread: float = 1.5
) -> Labeled:
    """Returns embeddings of classes that overlap, in units that differ by feature."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    means = spread * np.random.default_rng(99).normal(size=(len(counts), 8))
    embeddings = 5.0 + np.geomspace(0.01, 100.0, 8) * (
        means[labels] + generator.normal(size=(len(labels), 8))
    )
    patients = np.array([f"p{index // per_patient}" for index in range(len(labels))])
    return Labeled(embeddings, labels, patients)


def _regression(strength: float) -> pipeline.Pipeline:
    return pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        linear_model.LogisticRegression(C=strength, class_weight="balanced", max_iter=2000),
    )


@pytest.mark.parametrize("counts", [[30, 12], [20, 14, 26]])
def test_predictions_are_those_of_scikit_learn(counts: list[int]) -> None:
    labeled, others = _labeled(counts), _labeled(counts, seed=1).embeddings

    fitted = embedding_classifiers.fit(labeled, n_classes=len(counts))
    found = np.stack([fitted.predict(embedding) for embedding in others], axis=1)

    regression = _regression(fitted.strength).fit(labeled.embeddings, labeled.labels)
    vote = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        neighbors.KNeighborsClassifier(min(20, *counts), metric="cosine", weights="distance"),
    ).fit(labeled.embeddings, labeled.labels)
    assert np.abs(found[0] - regression.predict_proba(others)).max() < 1e-9
    assert np.abs(found[1] - vote.predict_proba(others)).max() < 1e-9
    assert (found[0].argmax(axis=1) == _labeled(counts, seed=1).labels).mean() > 0.7


@pytest.mark.parametrize("counts", [[30, 12], [20, 14, 26]])
def test_the_strength_is_that_of_a_search_over_patients(counts: list[int]) -> None:
    labeled = _labeled(counts, spread=0.5)

    found = embedding_classifiers.choose_strength(labeled, n_classes=len(counts))

    cv = model_selection.StratifiedGroupKFold(5)
    weights = (1.0 / np.bincount(labeled.labels))[labeled.labels]
    losses = [
        metrics.log_loss(
            labeled.labels,
            model_selection.cross_val_predict(
                _regression(strength),
                labeled.embeddings,
                labeled.labels,
                groups=labeled.patients,
                cv=cv,
                method="predict_proba",
            ),
            sample_weight=weights,
        )
        for strength in embedding_classifiers.STRENGTHS
    ]
    assert found == embedding_classifiers.STRENGTHS[int(np.argmin(losses))]
    assert found != embedding_classifiers.STRENGTHS[-1]


def test_folds_keep_the_cases_of_a_patient_together() -> None:
    """Copies of a case in other folds would make the weakest regularization look best."""
    one_each = _labeled([20, 20], per_patient=1, spread=0.3)
    copied = Labeled(
        np.repeat(one_each.embeddings, 3, axis=0),
        np.repeat(one_each.labels, 3),
        np.repeat(one_each.patients, 3),
    )
    strangers = copied._replace(patients=np.arange(120).astype(str))

    chosen = [
        embedding_classifiers.choose_strength(labeled, n_classes=2)
        for labeled in (copied, strangers)
    ]

    assert chosen[0] < chosen[1]


@pytest.mark.parametrize("counts", [[1, 1], [1, 6], [4, 2]])
def test_few_cases_have_a_fixed_strength(counts: list[int]) -> None:
    """Each class needs two patients to leave one out."""
    labeled = _labeled(counts)

    fitted = embedding_classifiers.fit(labeled, n_classes=2)

    assert fitted.strength == embedding_classifiers.DEFAULT_STRENGTH
    assert np.allclose(fitted.predict(labeled.embeddings[0]).sum(axis=1), 1.0)


def test_a_class_without_a_labeled_case_is_never_predicted() -> None:
    labeled = _labeled([8, 8])
    labeled = labeled._replace(labels=2 * labeled.labels)

    predicted = embedding_classifiers.fit(labeled, n_classes=4).predict(labeled.embeddings[0])

    assert predicted[:, [1, 3]].tolist() == [[0.0, 0.0]] * 2
    assert np.allclose(predicted.sum(axis=1), 1.0)


def test_a_single_class_is_always_predicted() -> None:
    labeled = _labeled([6])._replace(labels=np.full(6, 1))

    predicted = embedding_classifiers.fit(labeled, n_classes=3).predict(np.zeros(8))

    assert predicted.tolist() == [[0.0, 1.0, 0.0]] * 2


def test_the_unit_of_a_feature_does_not_matter() -> None:
    labeled = _labeled([20, 20])
    scale = np.geomspace(1e-3, 1e3, 8)
    scaled = labeled._replace(embeddings=scale * labeled.embeddings - 7.0)

    expected, found = (
        embedding_classifiers.fit(one, n_classes=2).predict(one.embeddings[3])
        for one in (labeled, scaled)
    )

    np.testing.assert_allclose(found, expected, atol=1e-4)
