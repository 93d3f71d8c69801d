"""Published figures, table specifications and the leaderboard's files."""
