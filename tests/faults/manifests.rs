//! What the manifests of production say about a rollout, read from what `kubectl kustomize` makes of them: nothing that
//! is rehearsed here is written down twice.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Deserializer, Value};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::support::brokers::find_program;

const FOLDER: &str = "k8s/overlays/production";

/// A probe, with what Kubernetes takes for what is not said.
#[derive(Clone, Debug)]
pub struct Probe {
    pub path: String,
    pub period: Duration,
    pub timeout: Duration,
    /// So many in a row, and it has failed.
    pub failures: u32,
}

/// How a pod lives and leaves.
#[derive(Clone, Debug)]
pub struct PodTimes {
    pub startup: Probe,
    pub liveness: Probe,
    pub readiness: Probe,
    pub pre_stop: Duration,
    pub drain: Duration,
    pub grace: Duration,
    /// Ready for so long, and it counts.
    pub min_ready: Duration,
}

/// A rollout as the Deployment, the autoscaler and the settings say it.
#[derive(Clone, Debug)]
pub struct Rollout {
    pub replicas: usize,
    pub max_surge: usize,
    pub max_unavailable: usize,
    pub times: PodTimes,
    /// The settings that are no secrets.
    pub environment: Vec<(&'static str, String)>,
}

impl Rollout {
    pub async fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
        // `tests/run` names the one that it installs: that of Debian 12 cannot read the manifests.
        let kubectl = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        let kubectl = find_program(&[&kubectl], "install kubectl 1.25 or newer, or run tests/run");
        let rendered = output(Command::new(&kubectl).arg("kustomize").arg(folder), "").await;
        // As JSON. An annotation is the least that kubectl does to an object without a cluster.
        let arguments = ["annotate", "--local", "--overwrite", "-f", "-", "rehearsed=yes", "-o", "json"];
        let text = output(Command::new(&kubectl).args(arguments), &rendered).await;
        let objects: Vec<Value> =
            Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().expect("kubectl writes JSON");
        let of_kind =
            |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
        let (deployment, settings) = (&of_kind("Deployment")["spec"], &of_kind("ConfigMap")["data"]);
        let replicas = deployment["replicas"].as_u64();
        let replicas = replicas.unwrap_or_else(|| number(&of_kind("HorizontalPodAutoscaler")["spec"]["minReplicas"]));
        let rolling = &deployment["strategy"]["rollingUpdate"];
        let settings = settings.as_object().expect("a ConfigMap has data").iter();
        let text = |value: &Value| value.as_str().expect("settings are text").to_owned();
        let environment: Vec<(&'static str, String)> =
            settings.map(|(name, value)| (&*name.clone().leak(), text(value))).collect();
        Self {
            replicas: replicas as usize,
            max_surge: number(&rolling["maxSurge"]) as usize,
            max_unavailable: number(&rolling["maxUnavailable"]) as usize,
            times: times(deployment, &environment),
            environment,
        }
    }
}

fn times(deployment: &Value, environment: &[(&str, String)]) -> PodTimes {
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];
    let drain = environment.iter().find(|(name, _)| *name == "TASKCAST_DRAIN_SECONDS").expect("a drain window");
    PodTimes {
        startup: probe(&container["startupProbe"]),
        liveness: probe(&container["livenessProbe"]),
        readiness: probe(&container["readinessProbe"]),
        pre_stop: seconds(&container["lifecycle"]["preStop"]["sleep"]["seconds"]),
        drain: Duration::from_secs(drain.1.parse().expect("whole seconds")),
        grace: seconds(&pod["terminationGracePeriodSeconds"]),
        min_ready: seconds(&deployment["minReadySeconds"]),
    }
}

fn probe(probe: &Value) -> Probe {
    // One good answer is enough, at once, in all of them; who says otherwise has to say so here as well.
    assert!(probe["initialDelaySeconds"].is_null() && probe["successThreshold"].is_null(), "not rehearsed: {probe}");
    let or = |field: &str, default: u64| probe[field].as_u64().unwrap_or(default);
    Probe {
        path: probe["httpGet"]["path"].as_str().expect("a probe over HTTP").to_owned(),
        period: Duration::from_secs(or("periodSeconds", 10)),
        timeout: Duration::from_secs(or("timeoutSeconds", 1)),
        failures: or("failureThreshold", 3) as u32,
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number is rehearsed, and nothing else: {value}"))
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs(number(value))
}

async fn output(command: &mut Command, given: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("kubectl starts");
    let mut input = child.stdin.take().expect("a pipe");
    let given = given.to_owned();
    // Beside reading: a pipe is smaller than manifests are.
    let writing = tokio::spawn(async move { input.write_all(given.as_bytes()).await });
    let output = child.wait_with_output().await.expect("kubectl ends");
    writing.await.expect("no panic").expect("kubectl reads");
    assert!(output.status.success(), "kubectl fails: {}", output.status);
    String::from_utf8(output.stdout).expect("kubectl writes text")
}
