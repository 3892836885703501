//! The JetStream objects, made and changed by ordered files with a checksummed ledger.
