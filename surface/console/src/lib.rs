//! reprieve-surface-console: see ARCHITECTURE.md.
