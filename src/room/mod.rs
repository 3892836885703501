//! Who gets it: members, order, cursor, claims.
