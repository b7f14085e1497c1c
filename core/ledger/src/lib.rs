//! reprieve-ledger: see ARCHITECTURE.md.
