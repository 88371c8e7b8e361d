//! Every vector against the schema of its message in the AsyncAPI document, and of its event in the OpenAPI document.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use jsonschema::Validator;
use serde_json::{Value, json};
use taskcast::proto::{AuthenticationErrorCode, CloseCode, ErrorCode, MalformedReason, ResumeFailure, Status};

use crate::{document, path};

/// What a reference of the document leads to, with the references in it still leading somewhere.
fn validator(document: &Value, pointer: &str) -> Validator {
    let schema = json!({ "$ref": format!("#{pointer}"), "components": document["components"] });
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{pointer}: {error}"))
}

fn payloads() -> BTreeMap<String, Validator> {
    let document = document("asyncapi.json");
    let messages = document["components"]["messages"].as_object().unwrap();
    let payload = |name: &String| (name.clone(), validator(&document, &format!("/components/messages/{name}/payload")));
    messages.keys().map(payload).collect()
}

fn vectors(folder: &str) -> Vec<(String, Value)> {
    let entries = fs::read_dir(path(&format!("vectors/{folder}"))).unwrap().map(|entry| entry.unwrap().path());
    let read = |file: std::path::PathBuf| {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap())
    };
    let vectors: Vec<_> = entries.map(read).collect();
    assert!(vectors.len() > 5, "vectors/{folder} is all but empty");
    vectors
}

/// The messages over WebSockets, of the dialect or not, whose schema takes it.
fn takers<'a>(payloads: &'a BTreeMap<String, Validator>, message: &Value, of: &str) -> BTreeSet<&'a str> {
    let names = payloads.iter().filter(|(name, _)| name.starts_with("celery_") == (of == "celery"));
    let of_sockets = names.filter(|(name, _)| !["event", "revocation"].contains(&name.as_str()));
    of_sockets.filter(|(_, payload)| payload.is_valid(message)).map(|(name, _)| name.as_str()).collect()
}

#[test]
fn every_message_of_the_service_is_taken_by_its_own_schema_and_no_other() {
    let payloads = payloads();
    for (name, vector) in vectors("server") {
        let native = &vector["encodings"]["json"];
        let own = native["type"].as_str().unwrap();
        assert_eq!(takers(&payloads, native, "taskcast"), BTreeSet::from([own]), "{name}: {native}");
        let event = vector["encodings"]["event_stream"].as_str().unwrap();
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let data = serde_json::from_str(data).unwrap();
        assert_eq!(takers(&payloads, &data, "taskcast"), BTreeSet::from([own]), "{name}: {event}");
        let celery = &vector["encodings"]["celery"];
        let dialect = format!("celery_{own}");
        if payloads.contains_key(&dialect) {
            assert_eq!(takers(&payloads, celery, "celery"), BTreeSet::from([dialect.as_str()]), "{name}: {celery}");
        } else {
            assert_eq!(celery, native, "{name}: the document does not tell that the dialect has a form of its own");
        }
    }
}

#[test]
fn every_message_of_a_client_is_taken_by_its_own_schema_and_no_other() {
    let payloads = payloads();
    for (name, vector) in vectors("client/valid") {
        let command = vector["expected"]["command"].as_str().unwrap();
        if vector["format"] == "json" && vector["native"] != false && command != "ignored" {
            assert_eq!(takers(&payloads, &vector["input"], "taskcast"), BTreeSet::from([command]), "{name}");
        }
    }
    for (name, vector) in vectors("client/invalid") {
        if vector["format"] == "json" && !vector["input"].is_null() {
            assert_eq!(takers(&payloads, &vector["input"], "taskcast"), BTreeSet::new(), "{name}");
        }
    }
}

#[test]
fn every_event_is_taken_or_refused_as_its_vector_says() {
    for (name, pointer) in
        [("asyncapi.json", "/components/messages/event/payload"), ("openapi.json", "/components/schemas/Event")]
    {
        let schema = validator(&document(name), pointer);
        for (vector, event) in vectors("valid") {
            assert!(schema.is_valid(&event["expected"]), "{name}: {vector}");
        }
        for (vector, event) in vectors("invalid") {
            let native = event["content_type"] == "application/json" && !event["input"].is_null();
            if native {
                assert_eq!(schema.is_valid(&event["input"]), event["beyond_schema"] == true, "{name}: {vector}");
            }
        }
    }
}

#[test]
fn every_cloud_event_is_taken_or_refused_as_its_vector_says() {
    let schema = validator(&document("openapi.json"), "/components/schemas/CloudEvent");
    let of_cloud_events = |(_, vector): &(String, Value)| {
        vector["content_type"] == "application/cloudevents+json" && !vector["input"].is_null()
    };
    for (name, vector) in vectors("valid").into_iter().filter(of_cloud_events) {
        assert!(schema.is_valid(&vector["input"]), "{name}");
    }
    // Which moments can be read is more than a schema says.
    for (name, vector) in vectors("invalid").into_iter().filter(of_cloud_events) {
        assert_eq!(schema.is_valid(&vector["input"]), vector["field"] == "time", "{name}");
    }
}

#[test]
fn every_revocation_is_taken_or_refused_as_its_vector_says() {
    let http = validator(&document("openapi.json"), "/components/schemas/Revocation");
    let record = validator(&document("asyncapi.json"), "/components/messages/revocation/payload");
    for (folder, is_good) in [("revocation/valid", true), ("revocation/invalid", false)] {
        for (name, vector) in vectors(folder) {
            let expected = is_good || vector["beyond_schema"] == true;
            assert_eq!(http.is_valid(&vector["input"]), expected, "{name}");
            assert_eq!(record.is_valid(&json!({ "revoke": vector["input"] })), expected, "{name}");
        }
    }
}

#[test]
fn every_message_type_is_in_the_document_and_every_message_of_the_document_is_a_type() {
    let contract: Value = serde_json::from_str(&crate::read("taskcast/v1/contract.json")).unwrap();
    let types = &contract["message_types"];
    let server = types["server"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
    let client = types["client"].as_object().unwrap().keys().cloned();
    let others = ["event", "revocation"].map(str::to_owned);
    let expected: BTreeSet<String> = server.chain(client).chain(others.clone()).collect();
    let document = document("asyncapi.json");
    let held = document["components"]["messages"].as_object().unwrap().keys();
    let native: BTreeSet<String> = held.filter(|name| !name.starts_with("celery_")).cloned().collect();
    assert_eq!(native, expected);
    let all = document["components"]["messages"].as_object().unwrap();
    for (channel, spoken) in document["channels"].as_object().unwrap() {
        let spoken_there: BTreeSet<&String> = spoken["messages"].as_object().unwrap().keys().collect();
        let of_workers = |name: &String| others.contains(name);
        match spoken["servers"][0]["$ref"].as_str().unwrap() {
            "#/servers/websocket" => {
                assert_eq!(spoken_there, all.keys().filter(|name| !of_workers(name)).collect(), "{channel}");
            }
            // Nothing can be asked there, so nothing is answered.
            "#/servers/event_stream" => assert!(spoken_there.iter().all(|name| expected.contains(*name)), "{channel}"),
            _ => assert!(spoken_there.iter().all(|name| of_workers(name)), "{channel}"),
        }
    }
}

#[test]
fn the_tables_of_the_documents_have_the_codes_of_the_service() {
    let (http, socket) = (document("openapi.json"), document("asyncapi.json"));
    let column = |table: &str, name: &str| -> Vec<Value> {
        socket[table]["values"].as_array().unwrap().iter().map(|row| row[name].clone()).collect()
    };
    let numbers: Vec<Value> = CloseCode::ALL.map(|code| json!(code.number())).into();
    let authentication: Vec<Value> = AuthenticationErrorCode::ALL.map(|code| json!(code.as_str())).into();
    let reasons: Vec<Value> = MalformedReason::ALL.map(|reason| json!(reason.as_str())).into();
    let statuses: Vec<Value> = Status::ALL.map(|status| json!(status.as_str())).into();
    assert_eq!(column("x-close-codes", "code"), numbers);
    assert_eq!(column("x-error-codes", "code"), ErrorCode::ALL.map(|code| json!(code.as_str())).to_vec());
    assert_eq!(column("x-authentication-error-codes", "code"), authentication);
    assert_eq!(column("x-resume-failures", "code"), ResumeFailure::ALL.map(|code| json!(code.as_str())).to_vec());
    assert_eq!(column("x-statuses", "name"), statuses);
    let schemas = &http["components"]["schemas"];
    assert_eq!(schemas["Problem"]["properties"]["error_code"]["enum"], json!(authentication));
    assert_eq!(schemas["Problem"]["properties"]["reason"]["enum"], json!(reasons));
    let of_events = [reasons, vec![json!("forbidden")]].concat();
    assert_eq!(schemas["EventProblem"]["properties"]["reason"]["enum"], json!(of_events));
    let asked = [vec![json!("active"), json!("ended")], statuses].concat();
    assert_eq!(http["paths"]["/api/v1/tasks"]["get"]["parameters"][0]["schema"]["enum"], json!(asked));
}
