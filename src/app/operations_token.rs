//! Has the operators' token follow its file. Refuses to know: who brings it.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::http::{OperationsSettings, OperationsToken};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A longer file holds no token, and may have no end.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Runs until `stop`.
pub(super) async fn run(settings: Arc<OperationsSettings>, stop: CancellationToken) {
    let (Some(token), Some(file)) = (&settings.token, &settings.token_file) else {
        return stop.cancelled().await;
    };
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (token, file) = (token.clone(), file.clone());
        // A mount that hangs must not hang a thread of the runtime.
        let looked = tokio::task::spawn_blocking(move || look(&token, &file));
        let Some(Ok(outcome)) = stop.run_until_cancelled(looked).await else { return };
        match &outcome {
            Ok(true) => tracing::info!("the operators' new token is good from now on"),
            // Each reason once, until something changes.
            Err(why) if told.as_ref() != Some(why) => {
                tracing::error!(why, "the file of the operators' token cannot be used; the one before stays");
            }
            Ok(false) | Err(_) => {}
        }
        told = outcome.err();
    }
}

/// Whether there was another one.
fn look(token: &OperationsToken, file: &Path) -> Result<bool, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(FILE_MAX_BYTES).read_to_string(&mut text));
    read.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    token
        .replace(text.trim_end_matches(['\n', '\r']))
        .map_err(|expected| format!("{} does not hold what is expected: {expected}", file.display()))
}
