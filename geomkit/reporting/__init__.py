"""What is sent to others: one page about embeddings, and tables that other tools read."""

from geomkit.reporting.export import PROJECTIONS, export_parquet

__all__ = ["PROJECTIONS", "export_parquet"]
