//! Has the operators' token follow its file. Refuses to know: who brings it.

use std::{fs::File, io::Read as _, path::Path, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    http::OperationsSettings,
    settled::{Settled, Sight},
};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A longer file holds no token, and may have no end.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Runs until `stop`.
pub(super) async fn run(settings: Arc<OperationsSettings>, stop: CancellationToken) {
    let (Some(token), Some(file)) = (&settings.token, &settings.token_file) else {
        return stop.cancelled().await;
    };
    let mut content = Settled::new(Ok(token.reveal()));
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let path = file.clone();
        // A mount that hangs must not hang a thread of the runtime.
        let looked = tokio::task::spawn_blocking(move || read(&path));
        let Some(Ok(now)) = stop.run_until_cancelled(looked).await else { return };
        if content.look(now) != Sight::Taken {
            continue;
        }
        let replaced = content.taken().clone().and_then(|text| {
            let unfit = |expected| format!("{} does not hold what is expected: {expected}", file.display());
            token.replace(&text).map_err(unfit)
        });
        match replaced {
            Ok(true) => tracing::info!("the operators' new token is good from now on"),
            // As before something else was there that could not be used.
            Ok(false) => {}
            Err(why) => {
                tracing::error!(reason = why, "the file of the operators' token cannot be used; the one before stays");
            }
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(FILE_MAX_BYTES).read_to_string(&mut text));
    read.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
