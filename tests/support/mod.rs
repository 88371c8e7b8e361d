//! What the integration tests share: brokers of their own, on free ports, that never outlive the test.

#![expect(dead_code, reason = "each test binary uses the part that it needs; `SOMETHING_IS_UNUSED` always is not")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test's set-up fails by panicking, with words")]

pub mod brokers;
pub mod identity_provider;

const SOMETHING_IS_UNUSED: () = ();

/// A name that no other test uses.
pub fn unique(what: &str) -> String {
    format!("{what}-{}", taskcast::clock::unique_id().simple())
}

/// Both crypto users, redis and lapin, need a process-wide provider; main installs it in the service.
pub fn install_crypto() {
    // Fails when another test of this binary was first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The sum, in whole numbers, of a metric's series whose text holds `part`.
pub fn metric(text: &str, part: &str) -> u64 {
    let series = text.lines().filter(|line| !line.starts_with('#') && line.contains(part));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}
