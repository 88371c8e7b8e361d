//! What Kubernetes does to one pod: probes as the manifests say, membership in the proxy by what they find, and on the way out
//! preStop, SIGTERM and the grace period.

use std::{
    process::Child,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use taskcast::clock;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    manifests::{PodTimes, Probe},
    support::brokers,
    world::{PATIENCE, Proxy, http},
};

/// How often it is asked whether a process has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A pod from its start until it is told to leave.
pub struct Pod {
    pub place: usize,
    ready: watch::Receiver<Option<Instant>>,
    /// What the probes had to complain of.
    complaints: Arc<Mutex<Vec<String>>>,
    watching: JoinHandle<()>,
}

/// How a pod left.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub place: usize,
    /// When it got SIGTERM.
    pub told: Instant,
    /// From then on.
    pub took: Duration,
    /// Nothing if it had to be killed.
    pub code: Option<i32>,
}

impl Pod {
    /// Probes it from now on. What is found reaches the proxy a moment later.
    pub fn watch(place: usize, port: u16, times: &PodTimes, proxy: Proxy, moment: Duration) -> Self {
        let (tell, ready) = watch::channel(None);
        let complaints = Arc::<Mutex<Vec<String>>>::default();
        let (times, found) = (times.clone(), complaints.clone());
        let watching = tokio::spawn(async move {
            let complain = |what: &str| {
                found
                    .lock()
                    .expect("no panic under the lock")
                    .push(format!("the {what} probe of place {place} failed"));
            };
            let mut failures = 0;
            while !answers(port, &times.startup).await {
                failures += 1;
                if failures == times.startup.failures {
                    complain("startup");
                }
                sleep(times.startup.period).await;
            }
            let liveness = async {
                let mut failures = 0;
                loop {
                    failures = if answers(port, &times.liveness).await { 0 } else { failures + 1 };
                    if failures == times.liveness.failures {
                        complain("liveness");
                    }
                    sleep(times.liveness.period).await;
                }
            };
            let readiness = async {
                let (mut failures, mut is_ready) = (0, false);
                loop {
                    let answered = answers(port, &times.readiness).await;
                    failures = if answered { 0 } else { failures + 1 };
                    let is_now = answered || (is_ready && failures < times.readiness.failures);
                    if is_ready != is_now {
                        is_ready = is_now;
                        if !is_ready {
                            complain("readiness");
                        }
                        tell.send_replace(is_ready.then(|| clock::now().instant));
                        sleep(moment).await;
                        proxy.tell(place, is_ready).await;
                    }
                    sleep(times.readiness.period).await;
                }
            };
            tokio::join!(liveness, readiness);
        });
        Self { place, ready, complaints, watching }
    }

    /// Ready, and has been for so long.
    pub async fn until_available(&mut self, min_ready: Duration) {
        let place = self.place;
        let available = async {
            loop {
                let since = *self.ready.wait_for(Option::is_some).await.expect("the probes go on");
                let since = since.expect("it was waited for");
                let left = (since + min_ready).saturating_duration_since(clock::now().instant);
                // Whoever becomes unready meanwhile begins anew.
                if timeout(left, self.ready.changed()).await.is_err() {
                    return;
                }
            }
        };
        let is_so = timeout(PATIENCE + min_ready, available).await.is_ok();
        assert!(is_so, "never happened: the pod in place {place} is available");
    }

    /// It is deleted: out of the proxy a moment later, preStop meanwhile, then SIGTERM, and SIGKILL when its time is up.
    pub async fn leave(self, mut child: Child, times: &PodTimes, proxy: Proxy, moment: Duration) -> Exit {
        self.watching.abort();
        let (place, deleted) = (self.place, clock::now().instant);
        let out = async {
            sleep(moment).await;
            proxy.tell(place, false).await;
        };
        let stop = async {
            sleep(times.pre_stop).await;
            let told = clock::now().instant;
            brokers::signal("-TERM", &child.id().to_string());
            loop {
                let now = clock::now().instant;
                if let Ok(Some(status)) = child.try_wait() {
                    return Exit { place, told, took: now - told, code: status.code() };
                }
                if now - deleted > times.grace {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Exit { place, told, took: now - told, code: None };
                }
                sleep(LOOK).await;
            }
        };
        tokio::join!(out, stop).1
    }

    pub fn complaints(&self) -> Arc<Mutex<Vec<String>>> {
        self.complaints.clone()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

async fn answers(port: u16, probe: &Probe) -> bool {
    let answer = timeout(probe.timeout, http(port, "GET", &probe.path, "", "")).await;
    matches!(answer, Ok(Some((200..400, _))))
}
