//! reprieve-tests: see ARCHITECTURE.md.
