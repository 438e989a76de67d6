"""Files: checked when they come, handed out, exported and counted when they go."""
