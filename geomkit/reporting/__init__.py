"""What is sent to others: one page about embeddings, and tables that other tools read."""

from geomkit.reporting.export import export_parquet
from geomkit.reporting.page import Reported, report

__all__ = ["Reported", "export_parquet", "report"]
