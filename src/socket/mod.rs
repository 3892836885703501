//! The handshake, the session machine and the pump that owns the connection.
