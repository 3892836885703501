//! What the fuzz targets in `fuzz/` reach of the inner parts. Their feature `fuzzing` alone opens it; no
//! other build has it.

pub use crate::admission::fuzzing as admission;
pub use crate::auth::fuzzing as auth;
pub use crate::config::fuzzing as config;
pub use crate::ops::operator::fuzzing as operator;
pub use crate::projection::fuzzing as projection;
pub use crate::publishing::fuzzing as publishing;
pub use crate::server::fuzzing as socket;
