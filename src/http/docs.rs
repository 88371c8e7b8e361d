//! `/docs/`: the contract as OpenAPI and AsyncAPI documents, and a page that shows both to people. Embedded, the same for
//! everybody, without a token: it says what the program can do and nothing of what it holds.
//!
//! Refuses to know: what is in the documents.

use warp::{
    http::{HeaderValue, StatusCode, header},
    reply::Response,
};

use super::{
    head::Head,
    page::{self, Asset, embedded},
    problem::HttpError,
};

pub(super) const PAGE: Asset = embedded!(html "page" "docs.html");
pub(super) const SCRIPT: Asset = embedded!(script "page" "docs.js");
pub(super) const STYLE: Asset = embedded!(style "page" "docs.css");
pub(super) const OPENAPI: Asset = embedded!(json "../../proto" "openapi.json");
pub(super) const ASYNCAPI: Asset = embedded!(json "../../proto" "asyncapi.json");

/// The page. Its own addresses are relative, so that it works below any prefix of a proxy; for that it has to be asked for
/// with a slash at the end, and whoever forgets that is told.
///
/// # Errors
/// As [`page::asset`].
pub(super) fn page(head: &Head, path: &str) -> Result<Response, HttpError> {
    let mut response = page::asset(head, &PAGE)?;
    if !path.ends_with('/') {
        response = Response::default();
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("docs/"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use warp::http::Method;

    use super::{super::head::tests, *};

    #[test]
    fn an_address_without_its_slash_leads_to_the_one_with_it() {
        let response = page(&tests::head("", &[]), "/docs").unwrap();
        assert_eq!(response.status(), 308);
        assert_eq!(response.headers()[header::LOCATION], "docs/");
        let response = page(&tests::head("", &[]), "/docs/").unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(response.headers().contains_key(header::CONTENT_SECURITY_POLICY));
    }

    #[test]
    fn the_page_and_its_documents_are_compressed_for_those_who_take_it() {
        for (asset, content) in
            [(&PAGE, "page"), (&SCRIPT, "script"), (&STYLE, "style"), (&OPENAPI, "openapi"), (&ASYNCAPI, "asyncapi")]
        {
            let zipped = page::asset(&tests::head("", &[("accept-encoding", "gzip")]), asset).unwrap();
            assert_eq!(zipped.headers()[header::CONTENT_ENCODING], "gzip", "{content}");
            let plain = page::asset(&tests::head("", &[]), asset).unwrap();
            assert!(!plain.headers().contains_key(header::CONTENT_ENCODING), "{content}");
            assert_ne!(zipped.headers()[header::ETAG], plain.headers()[header::ETAG], "{content}");
        }
    }

    #[test]
    fn any_page_may_read_the_documents_and_only_read_them() {
        for asset in [&OPENAPI, &ASYNCAPI] {
            let response = page::shared(&tests::head("", &[("origin", "https://editor.test")]), asset).unwrap();
            assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
            assert!(!response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
            assert_eq!(response.headers()["cross-origin-resource-policy"], "cross-origin");
            let tag = response.headers()[header::ETAG].to_str().unwrap().to_owned();
            let again = page::shared(&tests::head("", &[("if-none-match", tag.as_str())]), asset).unwrap();
            assert_eq!(again.status(), 304);
            assert_eq!(again.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
            let post = Head { method: Method::POST, ..tests::head("", &[]) };
            assert_eq!(page::shared(&post, asset).unwrap_err().status(), 405);
        }
    }

    #[test]
    fn the_page_asks_nobody_else_for_anything() {
        let files = [include_str!("page/docs.html"), include_str!("page/docs.js"), include_str!("page/docs.css")];
        for text in files {
            assert!(!text.contains("://") && !text.contains("url(\"//"), "an address of somebody else");
        }
    }
}
