"""CoralBay for eva: a CT encoder, CT data sets and a public radiology leaderboard.

The public names lie in the subpackages (`eva_coralbay.models`, `eva_coralbay.data`,
`eva_coralbay.evaluation`, `eva_coralbay.leaderboard`), so that reading a record imports no torch.
"""

from importlib import metadata

try:
    __version__ = metadata.version("eva-coralbay")
except metadata.PackageNotFoundError:
    # the sources are read without an installation, as the benchmarks on a bare machine do
    __version__ = "0+unknown"
