//! What others make of our WebSockets: the cases for servers of the Autobahn|Testsuite, through the accept loop, the
//! handshake and the reader and writer of frames that browsers meet. Only the session is another one: it sends back what
//! it hears, as the suite expects.

#![expect(clippy::print_stdout, reason = "the suite's verdicts are a table")]

use std::{collections::BTreeMap, path::Path, process::Stdio};

use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::{tests::start, *};
use crate::session::echo::echo;

/// As many cases as `tests/conformance/spec.json` asks for: fewer in the report were not run.
const CASES: usize = 261;

/// The service's default.
const MESSAGE_MAX_BYTES: usize = 65_536;

/// The suite opens one connection after the other, but does not wait for the last one to be gone.
const CONNECTIONS_MAX: usize = 10;

/// What the suite calls neither right nor wrong; every other case must be OK.
const INFORMATIONAL: &[(&str, &str)] = &[
    ("7.1.6", "256 KiB before a close: longer than a message may be, so it is skipped and the close is answered"),
    ("7.13.1", "close code 5000, which RFC 6455 gives no meaning: refused with 1002"),
    ("7.13.2", "close code 65535, likewise"),
];

/// Starts `wstest`, which cannot be called by a name where it was installed into a folder.
const RUN: &str = "from autobahntestsuite.wstest import run; run()";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python 2.7 and the Autobahn|Testsuite: `tests/run conformance`"]
async fn the_autobahn_testsuite_finds_nothing_wrong() {
    let python = std::env::var("TESTS_PYTHON2").expect("TESTS_PYTHON2, a Python 2.7");
    let packages = std::env::var("TESTS_AUTOBAHN").expect("TESTS_AUTOBAHN, the folder with autobahntestsuite");
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let address = start(&tracker, &stop, CONNECTIONS_MAX, |socket, early| async move {
        // A peer that hangs up in the middle of something is one of the cases.
        let _ = echo(socket, &early, MESSAGE_MAX_BYTES).await;
    })
    .await;
    // Kept for whoever wants to know more; a report of an earlier run must not pass for one of this run.
    let outcome = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/conformance");
    let _ = std::fs::remove_dir_all(&outcome);
    std::fs::create_dir_all(&outcome).unwrap();
    let spec = spec(&format!("ws://{address}"), &outcome);
    let mut suite = Command::new(python)
        .args(["-c", RUN, "--mode", "fuzzingclient", "--spec"])
        .arg(spec)
        .env("PYTHONPATH", packages)
        .env("PYTHONWARNINGS", "ignore")
        .current_dir(&outcome)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    assert!(suite.wait().await.unwrap().success(), "the suite did not run to its end");
    stop.cancel();
    judge(&outcome.join("index.json"));
}

/// The spec of the suite, made out for this server.
fn spec(url: &str, outcome: &Path) -> std::path::PathBuf {
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/spec.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(template).unwrap()).unwrap();
    spec["servers"][0]["url"] = json!(url);
    spec["outdir"] = json!(outcome);
    let path = outcome.join("spec.json");
    std::fs::write(&path, spec.to_string()).unwrap();
    path
}

/// Prints what is not OK, and fails unless it is to be expected.
fn judge(index: &Path) {
    let report: Value = serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap();
    let cases = report["taskcast"].as_object().unwrap();
    let mut counts = BTreeMap::new();
    let mut wrong = 0;
    for (case, found) in cases {
        let verdicts = [&found["behavior"], &found["behaviorClose"]].map(|verdict| verdict.as_str().unwrap_or("none"));
        *counts.entry(verdicts).or_insert(0) += 1;
        if verdicts == ["OK", "OK"] {
            continue;
        }
        let reason = INFORMATIONAL.iter().find(|(known, _)| known == case).map(|(_, reason)| *reason);
        let expected = reason.filter(|_| verdicts.iter().all(|verdict| ["OK", "INFORMATIONAL"].contains(verdict)));
        wrong += usize::from(expected.is_none());
        println!("{case:>8}  {:<14} close {:<14} {}", verdicts[0], verdicts[1], expected.unwrap_or("WRONG"));
    }
    for ([case, close], count) in counts {
        println!("{count:>4} cases: {case}, close {close}");
    }
    assert_eq!((cases.len(), wrong), (CASES, 0), "cases run, and wrong ones; see target/conformance/index.html");
}
