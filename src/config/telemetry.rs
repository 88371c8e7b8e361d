//! From checked values to where spans go. Refuses to know: what a span is.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::{convert, layers::Layers};
use crate::{client::ClientSettings, traces::TraceSettings};

/// `None`: nowhere, or a mistake was noted.
pub(super) fn traces(layers: &mut Layers<'_>) -> Option<TraceSettings> {
    let headers = layers.text("telemetry.otlp_headers").unwrap_or_default();
    let headers = read_headers(&headers);
    if headers.is_none() {
        layers.refuse(
            "telemetry.otlp_headers",
            "name=value, with commas between them and what is special percent-encoded",
        );
    }
    let tls_ca_file = layers.text("telemetry.tls_ca_file").map(PathBuf::from);
    Some(TraceSettings {
        endpoint: layers.text("telemetry.otlp_endpoint")?,
        headers: headers?,
        service_name: layers.text("telemetry.service_name")?,
        client: ClientSettings { timeout: convert::milliseconds(layers, "telemetry.otlp_timeout_ms"), tls_ca_file },
    })
}

fn read_headers(text: &str) -> Option<Vec<(String, String)>> {
    let members = text.split(',').map(str::trim).filter(|member| !member.is_empty());
    let header = |member: &str| {
        let (name, value) = member.split_once('=')?;
        let (name, value) = (name.trim(), percent_decode_str(value.trim()).decode_utf8().ok()?);
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let is_value = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        (is_name && is_value).then(|| (name.to_owned(), value.into_owned()))
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
        for bad in ["authorization", "=x", "a b=c", "a=%00", "a=%0d%0ab:c", "a=\u{e4}"] {
            assert_eq!(read_headers(bad), None, "{bad}");
        }
    }
}
