//! From checked values to where spans go. Refuses to know: what a span is.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::{convert, environment, keys, layers::Layers, mistake::Source};
use crate::{client::ClientSettings, traces::TraceSettings};

/// What a request is made of: whoever sends it says these.
const RESERVED: [&str; 4] = ["content-length", "content-type", "host", "transfer-encoding"];

/// `None`: nowhere, or a mistake was noted.
pub(super) fn traces(layers: &mut Layers<'_>) -> Option<TraceSettings> {
    let text = layers.text("telemetry.otlp_headers").unwrap_or_default();
    if let Err(expected) = check_headers(&text) {
        layers.refuse("telemetry.otlp_headers", expected);
    }
    let tls_ca_file = layers.text("telemetry.tls_ca_file").map(PathBuf::from);
    let endpoint = layers.text("telemetry.otlp_endpoint")?;
    Some(TraceSettings {
        address: if is_whole(layers) { endpoint } else { format!("{}/v1/traces", endpoint.trim_end_matches('/')) },
        headers: read_headers(&text)?,
        service_name: layers.text("telemetry.service_name")?,
        client: ClientSettings { timeout: convert::milliseconds(layers, "telemetry.otlp_timeout_ms"), tls_ca_file },
    })
}

/// The endpoint is not what is before `/v1/traces`, but all of it.
fn is_whole(layers: &Layers<'_>) -> bool {
    let source = keys::find("telemetry.otlp_endpoint").map(|key| layers.shown(key).1);
    matches!(source, Some(Source::Variable(name)) if name == environment::OF_TRACES_ALONE)
}

/// # Errors
/// What was expected.
pub(super) fn check_headers(text: &str) -> Result<(), String> {
    let expected = "name=value, with commas between them and what is special percent-encoded; none of";
    read_headers(text).map(|_| ()).ok_or_else(|| format!("{expected} {}", RESERVED.join(", ")))
}

fn read_headers(text: &str) -> Option<Vec<(String, String)>> {
    let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
    let header = |member: &str| {
        let (name, value) = member.split_once('=')?;
        let (name, value) = (name.trim(), percent_decode_str(value.trim()).decode_utf8().ok()?);
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let is_reserved = RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
        let is_value = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        (is_name && !is_reserved && is_value).then(|| (name.to_owned(), value.into_owned()))
    };
    members.map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs_and_values_may_be_encoded() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let read = read_headers("authorization=Bearer%20a=b, x-tenant=shop,").unwrap();
        assert_eq!(read, [pair("authorization", "Bearer a=b"), pair("x-tenant", "shop")]);
        assert_eq!(read_headers(""), Some(Vec::new()));
        for bad in ["authorization", "=x", "a b=c", "a=%00", "a=%0d%0ab:c", "a=\u{e4}", "Content-Type=x", "host=x"] {
            assert_eq!(read_headers(bad), None, "{bad}");
        }
    }
}
