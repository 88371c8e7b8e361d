//! Every route and every kind of problem that the code has, against the documents. The code is read as text: routes and
//! problems are named by literals, once each.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

use crate::document;

/// The code of `src/http`, without tests.
fn code() -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of_the_service = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".rs") && !name.ends_with("_tests.rs")
    };
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, text.split("#[cfg(test)]").next().unwrap().to_owned())
    };
    entries.filter(of_the_service).map(read).collect()
}

/// The literals in a line of code.
fn literals(line: &str) -> impl Iterator<Item = &str> {
    line.trim_start().split('"').skip(1).step_by(2)
}

fn is_comment(line: &&str) -> bool {
    line.trim_start().starts_with("//")
}

/// Patterns of routes, as the metrics have them: literals that begin with a slash.
fn routes() -> BTreeSet<String> {
    let code = code();
    let routes = code.iter().filter(|(name, _)| name.starts_with("routes")).flat_map(|(_, text)| text.lines());
    let named = routes.filter(|line| !is_comment(line)).flat_map(literals).filter(|literal| literal.starts_with('/'));
    // Files of the pages are nobody's interface.
    let is_part_of_a_page = |route: &&str| {
        let is_file = [".js", ".css", ".ico", "{file}"].iter().any(|end| route.ends_with(end));
        is_file && *route != "/client.js"
    };
    named.filter(|route| !is_part_of_a_page(route)).map(str::to_owned).collect()
}

/// Without the slash at the end that an address may have or not.
fn pattern(address: &str) -> String {
    let trimmed = address.trim_end_matches('/');
    if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }
}

#[test]
fn every_route_is_in_openapi_and_every_path_of_openapi_is_a_route() {
    let document = document("openapi.json");
    let documented: BTreeSet<String> =
        document["paths"].as_object().unwrap().keys().map(|path| pattern(path)).collect();
    assert!(documented.len() > 10, "{documented:?}");
    assert_eq!(routes(), documented);
}

#[test]
fn every_websocket_and_event_stream_is_a_channel_of_asyncapi_and_the_other_way_round() {
    let document = document("asyncapi.json");
    for (server, folder) in [("#/servers/websocket", "/ws/"), ("#/servers/event_stream", "/events/")] {
        let channels = document["channels"].as_object().unwrap().values();
        let of_it = channels.filter(|channel| channel["servers"][0]["$ref"] == server);
        let addresses: BTreeSet<String> = of_it.map(|channel| pattern(channel["address"].as_str().unwrap())).collect();
        assert_eq!(addresses, routes().into_iter().filter(|route| route.starts_with(folder)).collect());
    }
}

#[test]
fn every_address_tells_its_parameters() {
    let parameters = |address: &str| -> BTreeSet<String> {
        address.split('{').skip(1).map(|rest| rest.split('}').next().unwrap().to_owned()).collect()
    };
    for (name, channel) in document("asyncapi.json")["channels"].as_object().unwrap() {
        let told = channel["parameters"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        assert_eq!(parameters(channel["address"].as_str().unwrap()), told, "{name}");
    }
    for (path, methods) in document("openapi.json")["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            let all = operation["parameters"].as_array().into_iter().flatten();
            let of_path = all.filter(|parameter| parameter["in"] == "path");
            let told = of_path.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
            assert_eq!(parameters(path), told, "{path}");
        }
    }
}

/// What follows `HttpError::new(`, the status and a comma: the name of the problem.
fn problems() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (file, text) in code() {
        let calls = text.match_indices("HttpError::new(").map(|(at, call)| at + call.len());
        let own = text.match_indices("Self::new(").map(|(at, call)| at + call.len()).filter(|_| file == "problem.rs");
        for at in calls.chain(own) {
            let mut parts = text[at..].split('"');
            // No content, no problem: nobody is shown its name.
            if parts.next().unwrap().contains("NO_CONTENT") {
                continue;
            }
            let name = parts.next().unwrap();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{file}: {name:?} is no name");
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn every_problem_is_in_openapi_and_every_problem_of_openapi_is_one() {
    let document = document("openapi.json");
    let table = document["x-problem-types"].as_array().unwrap();
    let named = |row: &Value| row["name"].as_str().unwrap().to_owned();
    assert_eq!(problems(), table.iter().map(named).collect());
    let types: Vec<String> = table.iter().map(|row| format!("urn:taskcast:problem:{}", named(row))).collect();
    assert_eq!(document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"], serde_json::json!(types));
}

/// Each response, with where it stands.
fn responses(document: &Value) -> Vec<(String, &str, &Value)> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let response =
                    response["$ref"].as_str().map_or(response, |reference| document.pointer(&reference[1..]).unwrap());
                found.push((format!("{method} {path} {status}"), status.as_str(), response));
            }
        }
    }
    found
}

#[test]
fn every_refusal_names_problems_of_its_status_and_every_problem_has_a_place() {
    let document = document("openapi.json");
    let table = document["x-problem-types"].as_array().unwrap();
    let mut placed = BTreeSet::new();
    for (place, status, response) in responses(&document) {
        let is_problem = response["content"]["application/problem+json"].is_object();
        let names = response["x-problems"].as_array();
        assert_eq!(is_problem, names.is_some_and(|names| !names.is_empty()), "{place}");
        for name in names.into_iter().flatten() {
            let row = table.iter().find(|row| row["name"] == *name).unwrap_or_else(|| panic!("{place}: {name}?"));
            assert_eq!(row["status"].to_string(), status, "{place}: {name}");
            placed.insert(name.as_str().unwrap());
        }
    }
    assert_eq!(placed.len(), table.len(), "a problem has no place: {placed:?}");
}
