//! reprieve-policy: see ARCHITECTURE.md.
