//! A configuration file; and, above a line of dashes, variables of the environment, one a line.
#![no_main]

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use libfuzzer_sys::fuzz_target;
use taskcast::config::{Config, Sources};

fuzz_target!(|input: &[u8]| {
    let border = b"\n---\n";
    let at = input.windows(border.len()).position(|window| window == border);
    let (variables, file) = at.map_or((&[][..], input), |at| (&input[..at], &input[at + border.len()..]));
    let own = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let environment: Vec<(OsString, OsString)> = variables
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.iter().position(|byte| *byte == b'=').map(|at| line.split_at(at)))
        .map(|(name, value)| (own(name), own(&value[1..])))
        .collect();
    // No disk: the one file there is, and nothing where a secret could be.
    let read = |path: &Path| {
        if path == Path::new("taskcast.toml") { Ok(file.to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    let sources = Sources { file: Some(PathBuf::from("taskcast.toml")), environment, flags: Vec::new(), read: &read };
    match Config::load(&sources) {
        Ok(loaded) => assert!(!loaded.effective.is_empty()),
        Err(mistakes) => assert!(!mistakes.to_string().is_empty(), "refused without a word"),
    }
});
