//! What stands in the two documents and has its source elsewhere in `proto/`: schemas, tables, examples. Each place names
//! its source in `x-source`, so the documents say themselves what is derived.
//!
//! `x-source` is `event`, `server-message#task` (a definition or the message of that type), `contract#close_codes`,
//! `vectors/…#/pointer`, or `metrics`, which is the code. The source goes into the member `value` or `values`, if there is one, else in place of all others.
//! Examples of messages are not marked, since AsyncAPI has no room for it: they are the vectors of that message.

use std::fs;

use crate::{Ordered, metrics, path, read};

const SCHEMAS: [&str; 4] = ["event", "client-message", "server-message", "revocation"];

/// The document as its sources would have it.
pub fn derived(document: &Ordered) -> Ordered {
    let mut document = document.clone();
    let names = schema_names(&document);
    fill(&mut document, &names);
    if document.get("asyncapi").is_some() {
        give_examples(&mut document);
    }
    document
}

/// Which component holds which definition: (source, name).
fn schema_names(document: &Ordered) -> Vec<(String, String)> {
    let Some(Ordered::Object(schemas)) = document.at("/components/schemas") else { panic!("no schemas") };
    let source =
        |(name, schema): &(String, Ordered)| Some((schema.get("x-source")?.as_str()?.to_owned(), name.clone()));
    schemas.iter().filter_map(source).collect()
}

fn fill(value: &mut Ordered, names: &[(String, String)]) {
    match value {
        Ordered::Object(_) => {
            if let Some(source) = value.get("x-source").and_then(Ordered::as_str).map(str::to_owned) {
                fill_from(value, &source, names);
            } else if let Ordered::Object(members) = value {
                for (_, member) in members {
                    fill(member, names);
                }
            }
        }
        Ordered::Array(items) => items.iter_mut().for_each(|item| fill(item, names)),
        Ordered::Leaf(_) => {}
    }
}

fn fill_from(value: &mut Ordered, source: &str, names: &[(String, String)]) {
    let found = look_up(source, names);
    if let Some(place) = ["value", "values"].into_iter().find(|place| value.get(place).is_some()) {
        return value.set(place, found);
    }
    let Ordered::Object(mut members) = found else { panic!("{source} is no object") };
    members.insert(0, ("x-source".to_owned(), Ordered::text(source)));
    *value = Ordered::Object(members);
}

fn look_up(source: &str, names: &[(String, String)]) -> Ordered {
    let (file, part) = source.split_once('#').unwrap_or((source, ""));
    if file == "metrics" {
        return metrics::table();
    }
    if file == "contract" {
        return Ordered::parse(&read("taskcast/v1/contract.json")).get(part).unwrap().clone();
    }
    if file.starts_with("vectors/") {
        return Ordered::parse(&read(&format!("{file}.json"))).at(part).unwrap().clone();
    }
    assert!(SCHEMAS.contains(&file), "{source} is no source");
    let schema = Ordered::parse(&read(&format!("taskcast/v1/{file}.schema.json")));
    let mut found = if part.is_empty() { whole(&schema) } else { definition(&schema, part) };
    redirect(&mut found, file, names);
    found
}

/// Without what only a file of its own has.
fn whole(schema: &Ordered) -> Ordered {
    let Ordered::Object(members) = schema else { panic!("a schema is an object") };
    let own = |(name, _): &&(String, Ordered)| !["$schema", "$id", "$defs"].contains(&name.as_str());
    Ordered::Object(members.iter().filter(own).cloned().collect())
}

fn definition(schema: &Ordered, name: &str) -> Ordered {
    if let Some(definition) = schema.at(&format!("/$defs/{name}")) {
        return definition.clone();
    }
    let Some(Ordered::Array(messages)) = schema.get("oneOf") else { panic!("{name} is not defined") };
    let is_it = |message: &&Ordered| message.at("/properties/type/const").and_then(Ordered::as_str) == Some(name);
    messages.iter().find(is_it).unwrap_or_else(|| panic!("{name} is neither defined nor a message")).clone()
}

/// References within the source become references within the document.
fn redirect(value: &mut Ordered, file: &str, names: &[(String, String)]) {
    match value {
        Ordered::Object(members) => {
            for (key, member) in members {
                let target =
                    member.as_str().filter(|_| key == "$ref").and_then(|target| target.strip_prefix("#/$defs/"));
                if let Some(target) = target {
                    let source = format!("{file}#{target}");
                    let name = names.iter().find(|(held, _)| *held == source).map(|(_, name)| name);
                    let name = name.unwrap_or_else(|| panic!("no schema of the document is {source}"));
                    *member = Ordered::text(&format!("#/components/schemas/{name}"));
                } else {
                    redirect(member, file, names);
                }
            }
        }
        Ordered::Array(items) => items.iter_mut().for_each(|item| redirect(item, file, names)),
        Ordered::Leaf(_) => {}
    }
}

/// Each message gets the vectors that are of it.
fn give_examples(document: &mut Ordered) {
    let Ordered::Object(parts) = document else { panic!("no document") };
    let Some((_, components)) = parts.iter_mut().find(|(name, _)| name == "components") else {
        panic!("no components")
    };
    let Ordered::Object(kinds) = components else { panic!("no components") };
    let Some((_, Ordered::Object(messages))) = kinds.iter_mut().find(|(name, _)| name == "messages") else {
        panic!("no messages")
    };
    for (name, message) in messages {
        let examples = examples(name, message);
        assert!(!examples.is_empty(), "no vector is of the message {name}");
        message.set("examples", Ordered::Array(examples));
    }
}

fn examples(name: &str, message: &Ordered) -> Vec<Ordered> {
    let source = message.at("/payload/x-source").and_then(Ordered::as_str).unwrap_or_default();
    if source.starts_with("server-message#") {
        return vectors("server", |vector| of_type(vector.at("/encodings/json")?, name));
    }
    if source.starts_with("client-message#") {
        return vectors("client/valid", |vector| {
            let own = vector.get("native").is_none() && vector.get("format")?.as_str() == Some("json");
            of_type(vector.get("input")?, name).filter(|_| own)
        });
    }
    if let Some(name) = name.strip_prefix("celery_") {
        return vectors("server", |vector| {
            let celery = vector.at("/encodings/celery")?;
            of_type(celery, name).filter(|_| vector.at("/encodings/json") != Some(celery))
        });
    }
    // Of events and revocations there are too many: those that stand there.
    let folder = if name == "event" { "valid" } else { "revocation/valid" };
    let Some(Ordered::Array(chosen)) = message.get("examples") else { panic!("{name} has no examples") };
    let example = |chosen: &Ordered| {
        let name = chosen.get("name").and_then(Ordered::as_str).unwrap();
        let input = Ordered::parse(&read(&format!("vectors/{folder}/{name}.json"))).get("input").unwrap().clone();
        example(name, if folder == "valid" { input } else { Ordered::Object(vec![("revoke".to_owned(), input)]) })
    };
    chosen.iter().map(example).collect()
}

fn of_type(payload: &Ordered, name: &str) -> Option<Ordered> {
    (payload.get("type")?.as_str() == Some(name)).then(|| payload.clone())
}

fn vectors(folder: &str, payload: impl Fn(&Ordered) -> Option<Ordered>) -> Vec<Ordered> {
    let entries = fs::read_dir(path(&format!("vectors/{folder}"))).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    let read =
        |name: &String| Some(example(name, payload(&Ordered::parse(&read(&format!("vectors/{folder}/{name}.json"))))?));
    names.iter().filter_map(read).collect()
}

fn example(name: &str, payload: Ordered) -> Ordered {
    Ordered::Object(vec![("name".to_owned(), Ordered::text(name)), ("payload".to_owned(), payload)])
}
