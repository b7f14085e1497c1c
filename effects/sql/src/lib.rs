//! reprieve-effects-sql: see ARCHITECTURE.md.
