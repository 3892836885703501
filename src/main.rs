//! The `herald` binary: arguments in, exit code out.

use std::process::ExitCode;

/// The system's keeps most of what a burst took. This one's own threads give it back within 30 s.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    herald::cli::main()
}
