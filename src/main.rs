//! The binary: cryptography, a runtime, the command, its exit code.

use std::process::ExitCode;

/// Not every platform builds it; where services run, it counts.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // One process-wide choice for everything that speaks TLS; it fails only if it was made before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    taskcast::cli::main()
}
