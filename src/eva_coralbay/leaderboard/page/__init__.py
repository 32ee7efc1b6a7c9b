"""The leaderboard's page: static files that need no server and no network."""
