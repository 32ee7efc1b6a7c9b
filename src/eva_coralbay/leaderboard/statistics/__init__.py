"""How sure the leaderboard's numbers are: intervals, paired comparisons and rankings.

The unit is the case; the runs of a model (its seeds) are a second source of variation. Of every
value, higher is better: negate those of a metric of which lower is better. The methods:

- Intervals are by the BCa bootstrap (Efron 1987, JASA 82:171) at the expanded levels
  of Hesterberg (2015, The American Statistician 69:371, section 4.5; `CI.bca(expand=TRUE)` of his
  R package `resample`), which make up for resamples that vary too little and for a standard error
  that is itself estimated. Plain BCa intervals of 95 % cover 91 % at 12 cases, these 94 to 95 %.
  Intervals of differences are those of the t-tests that say whether two models differ, so that
  the interval holds 0 exactly if the models are not separable.
  No interval knows of what the cases do not show: if a model fails in one case of ten, those of 12
  cases cover 83 %, of 30 cases 90 %. Nor do two seeds show how far seeds vary: if they vary as
  much as the mean over the cases does, intervals cover 86 %.
- Two models are compared on the same cases by Wilcoxon's signed-rank test, with Holm's correction
  (1979, Scand. J. Statist. 6:65) for all pairs, as in challengeR (Wiesenfarth et al. 2021,
  Sci. Rep. 11:2369), and by a paired t-test; they differ if both say so. Models are ranked by their
  means, and Wilcoxon's test alone is not about these: of 30 skewed differences whose mean is 0 it
  makes a false claim in 15 % of trials, of 100 in 44 %.
- A rank interval counts the models that are significantly better and worse. With Holm's
  correction it holds for all models at once (S. Holm 2013; Mogstad et al. 2024, Rev. Econ.
  Stud. 91:476), and of several methods it is the one that Foucart et al. (2025, ESANN,
  doi:10.14428/esann/2025.ES2025-39) recommend. Chatbot Arena's rank is its lower end.
"""

from eva_coralbay.leaderboard.statistics.intervals import CONFIDENCE, Estimate, Mean, mean
from eva_coralbay.leaderboard.statistics.ranking import RankedModel, Ranking, rank
from eva_coralbay.leaderboard.statistics.significance import (
    SIGNIFICANCE,
    Comparison,
    compare,
    correct,
    holm,
)

__all__ = [
    "CONFIDENCE",
    "SIGNIFICANCE",
    "Comparison",
    "Estimate",
    "Mean",
    "RankedModel",
    "Ranking",
    "compare",
    "correct",
    "holm",
    "mean",
    "rank",
]
