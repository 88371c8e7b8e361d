//! Reads the lists of networks again when their files change. Contents are compared, not times: Kubernetes replaces a whole
//! folder, and a clock's steps may be longer than an editor's.
//!
//! Refuses to know: who is on the lists.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    config::{NOBODY, NetworkFiles, read_networks},
    limits::{Limits, Lists, Networks},
    metrics::Metrics,
    settled::{Settled, Sight},
};

const READ_INTERVAL: Duration = Duration::from_secs(2);

/// One file, and what was last known of it.
struct File {
    path: PathBuf,
    content: Settled<Result<Networks, String>>,
    /// The last that could be read.
    good: Networks,
    may_be_empty: bool,
}

/// Runs until `stop` is cancelled; does nothing where there are no files.
pub(super) async fn run(files: NetworkFiles, limits: Limits, metrics: Arc<Metrics>, stop: CancellationToken) {
    let NetworkFiles { fixed, allow, deny } = files;
    let file = |(path, good): (PathBuf, Networks), may_be_empty| {
        let content = Settled::new(Ok(good.clone()));
        File { path, content, good, may_be_empty }
    };
    let (mut allow, mut deny) = (allow.map(|allow| file(allow, false)), deny.map(|deny| file(deny, true)));
    if allow.is_none() && deny.is_none() {
        stop.cancelled().await;
        return;
    }
    let mut interval = tokio::time::interval(READ_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        let is_new = [reread(&mut allow, &metrics).await, reread(&mut deny, &metrics).await];
        if is_new.contains(&true) {
            let with =
                |fixed: &Networks, file: &Option<File>| file.as_ref().map_or(fixed.clone(), |f| fixed.and(&f.good));
            let lists = Lists { allow: with(&fixed.allow, &allow), deny: with(&fixed.deny, &deny) };
            tracing::info!(allow = lists.allow.len(), deny = lists.deny.len(), "the lists of networks were read again");
            limits.set_lists(lists);
        }
    }
}

/// Whether there is something new, and it is good.
async fn reread(file: &mut Option<File>, metrics: &Metrics) -> bool {
    let Some(file) = file else { return false };
    let path = file.path.clone();
    // A disk may take its time.
    let read = tokio::task::spawn_blocking(move || read_networks(&path)).await;
    let read = read.unwrap_or_else(|error| Err(error.to_string()));
    let read =
        read.and_then(
            |networks| {
                if networks.is_empty() && !file.may_be_empty { Err(NOBODY.to_owned()) } else { Ok(networks) }
            },
        );
    if file.content.look(read) != Sight::Taken {
        return false;
    }
    let taken = file.content.taken();
    match taken {
        Ok(networks) => file.good = networks.clone(),
        Err(why) => tracing::error!(
            path = %file.path.display(),
            reason = why,
            "a list of networks cannot be read; what it last said holds. Mend the file: a network in each line"
        ),
    }
    let is_good = taken.is_ok();
    metrics.networks_reloaded(is_good);
    is_good
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{clock, limits::Settings};

    #[tokio::test]
    async fn an_allow_list_that_becomes_empty_lets_nobody_new_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allow.txt");
        std::fs::write(&path, "192.0.2.1\n").unwrap();
        let metrics = Arc::new(Metrics::new("memory"));
        let mut allow = Some(File {
            content: Settled::new(read_networks(&path)),
            good: read_networks(&path).unwrap(),
            path: path.clone(),
            may_be_empty: false,
        });
        std::fs::write(&path, "# nobody\n").unwrap();
        assert!(!reread(&mut allow, &metrics).await && !reread(&mut allow, &metrics).await);
        let file = allow.as_ref().unwrap();
        assert!(file.content.taken().is_err() && file.good == Networks::read("192.0.2.1").unwrap());
        std::fs::write(&path, "192.0.2.2\n").unwrap();
        assert!(!reread(&mut allow, &metrics).await, "it may be being written");
        assert!(reread(&mut allow, &metrics).await);
        assert_eq!(allow.unwrap().good, Networks::read("192.0.2.2").unwrap());
    }

    /// A deny list in a file, watched; and whether an address is let in.
    struct Watched {
        path: PathBuf,
        limits: Limits,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
        _folder: tempfile::TempDir,
    }

    impl Watched {
        fn new(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("deny.txt");
            std::fs::write(&path, text).unwrap();
            let (metrics, stop) = (Arc::new(Metrics::new("memory")), CancellationToken::new());
            let good = Networks::read(text).unwrap();
            let lists = Lists { deny: good.clone(), ..Lists::default() };
            let limits = Limits::new(Settings { lists, ..Settings::default() }, metrics.clone(), clock::now());
            let files = NetworkFiles { deny: Some((path.clone(), good)), ..NetworkFiles::default() };
            tokio::spawn(run(files, limits.clone(), metrics.clone(), stop.clone()));
            Self { path, limits, metrics, stop, _folder: folder }
        }

        fn lets_in(&self, address: &str) -> bool {
            let address: IpAddr = address.parse().unwrap();
            self.limits.admit(&self.limits.caller(address, false), clock::now()).is_ok()
        }

        async fn until_reloads(&self, outcome: &str, count: u32) {
            let series = format!("taskcast_network_reloads_total{{outcome=\"{outcome}\"}} {count}\n");
            let reloaded = async {
                while !self.metrics.render().unwrap().contains(&series) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), reloaded).await.expect("it is read again");
        }
    }

    #[tokio::test]
    async fn a_list_that_changes_holds_and_one_that_breaks_does_not() {
        let watched = Watched::new("192.0.2.1\n");
        assert!(!watched.lets_in("192.0.2.1") && watched.lets_in("192.0.2.2"));
        std::fs::write(&watched.path, "192.0.2.2 # now that one\n").unwrap();
        watched.until_reloads("read", 1).await;
        assert!(watched.lets_in("192.0.2.1") && !watched.lets_in("192.0.2.2"));
        std::fs::write(&watched.path, "192.0.2.3\n192.0.2.x\n").unwrap();
        watched.until_reloads("failed", 1).await;
        std::fs::remove_file(&watched.path).unwrap();
        watched.until_reloads("failed", 2).await;
        assert!(!watched.lets_in("192.0.2.2") && watched.lets_in("192.0.2.3"), "what it last said holds");
        std::fs::write(&watched.path, "192.0.2.2\n").unwrap();
        watched.until_reloads("read", 2).await;
        assert!(!watched.lets_in("192.0.2.2"));
        watched.stop.cancel();
    }
}
