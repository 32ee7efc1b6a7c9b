"""CoralBay for eva: a CT encoder, CT data sets and a public radiology leaderboard.

The public names lie in the subpackages (`eva_coralbay.models`, `eva_coralbay.data`,
`eva_coralbay.evaluation`, `eva_coralbay.leaderboard`), so that reading a record imports no torch.
"""

from importlib import metadata

__version__ = metadata.version("eva-coralbay")
