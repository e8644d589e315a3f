"""Stored records as files for people and programs: CSV, JSON lines, Parquet."""
