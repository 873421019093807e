"""The sums that metrics are made of: moments, pairwise tiles, ranks and neighbours."""
