//! reprieve-pgwire: see ARCHITECTURE.md.
