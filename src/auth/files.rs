//! Keys in files that change while the service runs: an editor's, a deployment's, a mount of Kubernetes, which swaps a
//! symbolic link. They are read at an interval. To be told of changes by the kernel instead, one would have to watch
//! every directory on the way, and would hear nothing on network file systems; a file of keys is read in microseconds.
//!
//! Refuses to know: what is in the files.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    metrics::{KeyRefresh, KeySource, Metrics},
    settled::{Settled, Sight},
};

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A longer file holds no keys.
const FILE_MAX_BYTES: u64 = 256 * 1024;

/// The whole content.
///
/// # Errors
/// Why it cannot be had, with the file's name.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut content));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    if content.len() as u64 > FILE_MAX_BYTES {
        return Err(format!("{}: longer than {FILE_MAX_BYTES} bytes", path.display()));
    }
    Ok(content)
}

type Content = Result<Vec<u8>, String>;

/// Files, and who takes what is in them.
pub(super) struct Watch {
    files: Vec<Watched>,
    reload: Box<dyn Fn() -> Result<(), String> + Send>,
}

/// One file, as it was when it was looked at.
pub(super) struct Watched {
    path: PathBuf,
    /// Taken or refused.
    content: Settled<Content>,
}

impl Watch {
    /// `reload` reads the files itself; it fails when nothing good is in them, and then keeps what it had.
    pub fn new(files: Vec<Watched>, reload: impl Fn() -> Result<(), String> + Send + 'static) -> Self {
        Self { files, reload: Box::new(reload) }
    }

    /// One look; the outcome of taking what has changed, if something has.
    fn look(&mut self) -> Option<Result<(), String>> {
        // All of them are looked at, also when the first has changed.
        let changed = self.files.iter_mut().filter_map(|file| file.look().then_some(())).count();
        (changed > 0).then(|| (self.reload)())
    }
}

impl Watched {
    /// Looks for the first time. Whoever takes what is in the files does it after this, so that no change is missed.
    pub fn all(paths: Vec<PathBuf>) -> Vec<Self> {
        let first = |path: PathBuf| {
            let content = Settled::new(read(&path));
            Self { path, content }
        };
        paths.into_iter().map(first).collect()
    }

    fn look(&mut self) -> bool {
        self.content.look(read(&self.path)) == Sight::Taken
    }
}

/// Looks at the files for as long as it is polled. Returns at once if there are none.
pub(super) async fn run(watches: Vec<Watch>, metrics: Arc<Metrics>) {
    let mut watches: Vec<Watch> = watches.into_iter().filter(|watch| !watch.files.is_empty()).collect();
    while !watches.is_empty() {
        tokio::time::sleep(LOOK_INTERVAL).await;
        // A network file system may take its time.
        let looked = tokio::task::spawn_blocking(move || {
            let outcomes: Vec<_> = watches.iter_mut().filter_map(Watch::look).collect();
            (watches, outcomes)
        });
        let Ok((back, outcomes)) = looked.await else { return };
        watches = back;
        for outcome in outcomes {
            match outcome {
                Ok(()) => {
                    tracing::info!("the keys in files have changed; the new ones are in use");
                    metrics.keys_refreshed(KeySource::File, KeyRefresh::Changed);
                }
                Err(why) => {
                    tracing::error!(
                        reason = why,
                        "keys in files have changed and cannot be used; those from before are kept"
                    );
                    metrics.keys_refreshed(KeySource::File, KeyRefresh::Failed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_two_looks_saw_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("one");
        let mut watch = Watch::new(Watched::all(vec![path.clone()]), || Ok(()));
        assert!(watch.look().is_none() && watch.look().is_none());
        write("tw");
        assert!(watch.look().is_none(), "it may be half written");
        write("two");
        assert!(watch.look().is_none());
        assert!(watch.look().is_some());
        assert!(watch.look().is_none(), "once");
        std::fs::remove_file(&path).unwrap();
        assert!(
            watch.look().is_none() && watch.look().is_some() && watch.look().is_none(),
            "told once that it is gone"
        );
        write("two");
        assert!(watch.look().is_none() && watch.look().is_some());
    }

    #[test]
    fn a_file_that_never_ends_is_not_read_to_its_end() {
        assert!(read(Path::new("/dev/zero")).unwrap_err().contains("longer than"));
    }
}
