"""Alembic migrations of the ledger, run by `store.database` when the schema is behind."""
