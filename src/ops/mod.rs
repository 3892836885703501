//! The running process: listeners, TLS, health, drain.
