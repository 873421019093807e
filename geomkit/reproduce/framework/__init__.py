"""Grid, runner, claims and report."""
