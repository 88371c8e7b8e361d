//! The binary: cryptography, a runtime, the command, its exit code.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    // One process-wide choice for everything that speaks TLS; it fails only if it was made before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    taskcast::cli::main()
}
