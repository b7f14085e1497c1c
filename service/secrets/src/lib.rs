//! reprieve-secrets: see ARCHITECTURE.md.
