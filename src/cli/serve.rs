//! `taskcast serve`: configuration, logging, the service, until a signal.

use tracing::{info, warn};

use super::{Failure, arguments};
use crate::{
    app::App,
    config::{self, Config, Loaded, LogFormat},
    lifecycle::{self, Lifecycle},
    telemetry,
};

pub(super) async fn run(common: &arguments::Common) -> Result<u8, Failure> {
    let loaded = Config::load(&arguments::sources(common))?;
    let app = start(loaded).await?;
    let lifecycle = Lifecycle::start().map_err(|error| format!("signals cannot be listened to: {error}"))?;
    app.run(lifecycle.stop).await?;
    Ok(0)
}

/// Starts logging and the service, and logs where it listens.
pub(super) async fn start(loaded: Loaded) -> Result<App, Failure> {
    let Loaded { config, warnings, effective: _ } = loaded;
    let log_level = match config.log_format {
        LogFormat::Text => telemetry::start_text(&config.log_level)?,
        LogFormat::Json => telemetry::start_json(&config.log_level)?,
    };
    if let Some(path) = config.log_level_file.clone() {
        tokio::spawn(log_level.follow(path, config::check_log_level));
    }
    for warning in warnings {
        warn!(warning, "a setting is hardly meant");
    }
    let connections = config.http.connections_max as u64;
    if let Some(open_files) = lifecycle::raise_open_files().filter(|open_files| *open_files < connections) {
        warn!(open_files, connections_max = connections, "fewer files may be open than connections");
    }
    let log = format!("{:?}", config.log.backend).to_lowercase();
    let app = App::start(config).await?;
    info!(
        address = %app.address(),
        operations_address = %app.operations_address(),
        log,
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    Ok(app)
}
