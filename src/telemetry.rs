//! Log lines on stderr, as text or JSON. Refuses to know: what is logged.

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Config, LogFormat};

/// Starts logging for the whole process. Colours only where a person looks.
///
/// # Errors
/// A filter that cannot be read, or a second start, in words for the operator.
pub fn start(config: &Config) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.log_level).map_err(|why| format!("log_level: {why}"))?;
    let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(is_terminal);
    match config.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|why| format!("logging could not be started: {why}"))
}
