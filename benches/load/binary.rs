//! The taskcast that is put to work: as it is shipped.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::Outcome;

/// What cargo built beside this harness. It has the features that tests add to its libraries (tokio's `test-util` looks
/// at a paused clock on every question for the time), so it will do for a smoke run only.
const BUILT_BESIDE: &str = env!("CARGO_BIN_EXE_taskcast");

/// Builds the release binary as `cargo build --release` does, and keeps a copy, since cargo puts the other one into its
/// place when the harness is next built.
///
/// # Errors
/// It does not build.
pub fn release() -> Outcome<PathBuf> {
    let beside = Path::new(BUILT_BESIDE);
    let target = beside.parent().and_then(Path::parent).ok_or("taskcast was built in no folder")?;
    crate::say("building taskcast as it is shipped (cargo build --release)");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--bin", "taskcast", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status()?;
    if !status.success() {
        return Err("taskcast does not build".into());
    }
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder)?;
    let copy = folder.join("taskcast");
    std::fs::copy(target.join("release/taskcast"), &copy)?;
    Ok(copy)
}

pub fn built_beside() -> PathBuf {
    BUILT_BESIDE.into()
}
