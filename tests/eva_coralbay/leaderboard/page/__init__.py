"""Tests of the leaderboard's page."""
