"""The classifiers of embeddings: logistic regression and nearest neighbors of scikit-learn.

Embeddings are standardized by the mean and the standard deviation of the labeled ones. Classes
weigh the same, as the headline metric is the balanced accuracy.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn import dummy, linear_model, model_selection, neighbors, pipeline, preprocessing

_Array = npt.NDArray[np.float64]

METHODS = ("regression", "neighbors")
"""The classifiers, in the order in which they predict."""

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""The inverse strengths (`C`) of the regularization to choose from."""

DEFAULT_STRENGTH = 0.1
"""The one where a class has labeled cases of one patient only, so that none can be left out."""

FOLDS = 5
"""The most folds of the cross-validation that chooses the strength."""

NEIGHBORS = 20
"""The most neighbors that vote; no more than the rarest class has labeled cases."""

_MAX_ITERATIONS = 2000


class Labeled(NamedTuple):
    """Labeled embeddings."""

    embeddings: _Array
    """Of shape [N, E]."""

    labels: npt.NDArray[np.int64]
    """The index of the class of each, of shape [N]."""

    patients: npt.NDArray[np.str_]
    """The id of the patient of each, of shape [N]."""

    def select(self, indices: npt.NDArray[np.intp]) -> "Labeled":
        """Returns some of them."""
        return Labeled(self.embeddings[indices], self.labels[indices], self.patients[indices])


@dataclasses.dataclass(frozen=True)
class Classifiers:
    """Both classifiers of some labeled embeddings."""

    regression: Any
    """Logistic regression; if all labeled cases are of one class, it predicts that class."""

    neighbors: Any
    """The vote of the nearest neighbors by cosine similarity, weighted by the inverse distance."""

    n_classes: int
    """The number of classes of the task."""

    strength: float
    """The inverse strength of the regularization of the logistic regression."""

    def predict(self, embedding: _Array) -> _Array:
        """Predicts the probabilities of an embedding.

        Args:
            embedding: The embedding, of shape [E].

        Returns:
            The probabilities by classifier, in the order of `METHODS`, of shape [2, classes]; 0
            for a class without a labeled case.
        """
        both = (self.regression, self.neighbors)
        return np.concatenate([_predict(one, embedding[None], self.n_classes) for one in both])


def fit(labeled: Labeled, *, n_classes: int) -> Classifiers:
    """Fits both classifiers.

    Args:
        labeled: The labeled embeddings.
        n_classes: The number of classes of the task, some of which may have no labeled case.
    """
    strength = choose_strength(labeled, n_classes=n_classes)
    counts = np.bincount(labeled.labels, minlength=n_classes)
    vote = neighbors.KNeighborsClassifier(
        n_neighbors=min(NEIGHBORS, int(counts[counts > 0].min())),
        metric="cosine",
        weights="distance",
    )
    voting = pipeline.make_pipeline(preprocessing.StandardScaler(), vote)
    return Classifiers(
        regression=_fit_regression(labeled, strength),
        neighbors=voting.fit(labeled.embeddings, labeled.labels),
        n_classes=n_classes,
        strength=strength,
    )


def choose_strength(labeled: Labeled, *, n_classes: int) -> float:
    """Chooses the strength of the logistic regression by cross-validation over patients.

    The folds are those of scikit-learn's `StratifiedGroupKFold` without shuffling: `FOLDS` of
    them, or as many as the rarest class has patients.

    Args:
        labeled: The labeled embeddings, in the order that the folds follow from.
        n_classes: The number of classes of the task.

    Returns:
        The strength with the lowest logarithmic loss of left-out cases, in which each class has
        the same weight; the first of `STRENGTHS` among equal ones.
    """
    patients, known = labeled.patients, np.unique(labeled.labels)
    by_class = [np.unique(patients[labeled.labels == label]) for label in known]
    folds = min(FOLDS, *map(len, by_class))
    if folds < 2 or len(known) < 2:
        return DEFAULT_STRENGTH
    splitter = model_selection.StratifiedGroupKFold(folds)
    splits = list(splitter.split(labeled.embeddings, labeled.labels, patients))
    losses = []
    for strength in STRENGTHS:
        predicted = np.empty((len(patients), n_classes))
        for train, left_out in splits:
            model = _fit_regression(labeled.select(train), strength)
            predicted[left_out] = _predict(model, labeled.embeddings[left_out], n_classes)
        of_truth = predicted[np.arange(len(patients)), labeled.labels]
        loss = -np.log(of_truth.clip(min=_LOWEST_PROBABILITY))
        losses.append(np.mean([loss[labeled.labels == label].mean() for label in known]))
    return STRENGTHS[int(np.argmin(losses))]


_LOWEST_PROBABILITY = 1e-12
"""What a probability counts as at least, so that one case does not decide."""


def _fit_regression(labeled: Labeled, strength: float) -> Any:
    is_single = len(np.unique(labeled.labels)) == 1
    model = (
        dummy.DummyClassifier(strategy="prior")
        if is_single
        else linear_model.LogisticRegression(
            C=strength, class_weight="balanced", max_iter=_MAX_ITERATIONS
        )
    )
    steps = pipeline.make_pipeline(preprocessing.StandardScaler(), model)
    return steps.fit(labeled.embeddings, labeled.labels)


def _predict(model: Any, embeddings: _Array, n_classes: int) -> _Array:
    """Returns probabilities of shape [N, classes of the task]."""
    probabilities = np.zeros((len(embeddings), n_classes))
    probabilities[:, model.classes_] = model.predict_proba(embeddings)
    return probabilities
