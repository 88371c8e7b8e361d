//! `taskcast check-config`: what holds, and from where; warnings and mistakes on stderr.

use std::fmt::Write as _;

use super::{Failure, arguments, complain, print};
use crate::config::{Config, Source};

pub(super) fn run(common: &arguments::Common) -> Result<u8, Failure> {
    let loaded = Config::load(&arguments::sources(common))?;
    for warning in &loaded.warnings {
        complain(&format!("warning: {warning}\n"));
    }
    let mut out = "The configuration can be run. What is not a default:\n".to_owned();
    for effective in loaded.effective.iter().filter(|effective| effective.source != Source::Default) {
        let _ = writeln!(out, "  {} = {}    ({})", effective.key, effective.value, effective.source);
    }
    let speech = |is_encrypted: bool| if is_encrypted { " (TLS)" } else { "" };
    let Config { listen, operations_listen, tls, operations_tls, .. } = &loaded.config;
    let (tls, operations_tls) = (speech(tls.is_some()), speech(operations_tls.is_some()));
    let _ = writeln!(out, "Listens on {listen}{tls} and {operations_listen}{operations_tls}.");
    let memory = loaded.config.memory_max_bytes.map_or("without a limit".to_owned(), |bytes| format!("{bytes} bytes"));
    let _ = writeln!(out, "Memory: {memory} (memory.max_bytes); tasks: {} bytes.", loaded.config.tasks.max_bytes);
    print(&out);
    Ok(0)
}
