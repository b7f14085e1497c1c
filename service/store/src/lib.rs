//! reprieve-store: see ARCHITECTURE.md.
