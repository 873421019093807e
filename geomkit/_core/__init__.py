"""Array operations, threads and ranks, device and precision, atomic files."""
