//! reprieve-testkit: see ARCHITECTURE.md.
