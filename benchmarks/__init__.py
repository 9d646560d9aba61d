"""Speed and memory, as ratios in one run against the peers a user could pick instead; see README.md. Not installed."""
