//! reprieve-audit: see ARCHITECTURE.md.
