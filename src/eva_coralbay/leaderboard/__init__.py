"""The leaderboard: what a run has measured, and how it is shown. Imports no torch."""
