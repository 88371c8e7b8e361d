//! The documents for people and for tools, `proto/openapi.json` and `proto/asyncapi.json`, cannot drift: their schemas,
//! tables and examples are those of the contract, and every route, problem, message and code that the service has is in
//! them, and nothing else. So `METRICS.md`. What the running service answers is compared in `tests/service/rest.rs`.
//!
//! `TASKCAST_WRITE_SPECIFICATIONS=1 cargo test --test specifications` writes what is derived; look at the difference
//! before you commit it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

mod coverage;
mod derived;
mod log_lines;
mod messages;
mod metrics;
mod ordered;

use std::{fs, path::PathBuf};

use serde_json::Value;

use ordered::Ordered;

const DOCUMENTS: [&str; 2] = ["openapi.json", "asyncapi.json"];

fn path(below: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto").join(below)
}

fn read(below: &str) -> String {
    fs::read_to_string(path(below)).unwrap_or_else(|error| panic!("proto/{below}: {error}"))
}

fn document(name: &str) -> Value {
    serde_json::from_str(&read(name)).unwrap()
}

#[test]
fn the_documents_hold_what_their_sources_say() {
    for name in DOCUMENTS {
        let text = read(name);
        let derived = derived::derived(&Ordered::parse(&text)).to_file();
        if std::env::var_os("TASKCAST_WRITE_SPECIFICATIONS").is_some() {
            fs::write(path(name), derived).unwrap();
            continue;
        }
        // By line, since the whole of it is no help to anybody.
        let drifted = text.lines().zip(derived.lines()).enumerate().find(|(_, (held, derived))| held != derived);
        assert_eq!(drifted, None, "proto/{name} is not what its sources say, see the head of this file");
        assert_eq!(text.len(), derived.len(), "proto/{name}");
    }
}

#[test]
fn the_documents_have_the_version_of_the_service() {
    for name in DOCUMENTS {
        assert_eq!(document(name)["info"]["version"], env!("CARGO_PKG_VERSION"), "{name}");
    }
}

/// Everything that somebody refers to, in a document of `value`.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_documents_stand_alone_and_hold_nothing_that_nobody_refers_to() {
    for name in DOCUMENTS {
        let document = document(name);
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{name}: {reference} is elsewhere"));
            assert!(document.pointer(pointer).is_some(), "{name}: {reference} leads nowhere");
        }
        for (kind, components) in document["components"].as_object().unwrap() {
            // Those are referred to by name.
            let by_name = kind == "securitySchemes";
            for component in components.as_object().unwrap().keys().filter(|_| !by_name) {
                let reference = format!("#/components/{kind}/{component}");
                assert!(found.contains(&reference.as_str()), "{name}: nobody refers to {reference}");
            }
        }
    }
}
