//! reprieve-surface-postgres: see ARCHITECTURE.md.
