//! reprieve-approvals: see ARCHITECTURE.md.
