//! The layers: a file, then the environment, then flags. Each later one wins; mistakes in any of them count.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    environment, file,
    keys::{self, Key},
    mistake::{self, EXAMPLE_OF_NOTHING_KNOWN, Mistake, Mistakes, Source},
    suggest,
    value::{self, Raw, Value},
};

/// Where settings are read from. The environment and the disk are arguments, so that a test needs neither.
pub struct Sources<'a> {
    /// `--config`; wins over `TASKCAST_CONFIG`.
    pub file: Option<PathBuf>,
    /// All variables; those that do not begin with `TASKCAST_` are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// Later ones win.
    pub flags: Vec<Flag>,
    /// Reads a whole file.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

/// A flag that sets a key.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As it was written: `--listen`, `--set`.
    pub name: String,
    /// The key's path.
    pub key: String,
    /// `None`: `--set` without a `=`.
    pub value: Option<String>,
}

/// What the layers add up to, mistakes included.
pub(super) struct Layers<'a> {
    pub sources: &'a Sources<'a>,
    entries: BTreeMap<&'static str, Entry>,
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<String>,
    /// Keys whose value was refused: what follows from them is not reported on top.
    mistaken: BTreeSet<&'static str>,
    /// The file could not be read, so a missing setting may be in it.
    pub file_is_broken: bool,
}

struct Entry {
    value: Value,
    source: Source,
}

impl<'a> Layers<'a> {
    /// Reads all layers, and the files that secrets are in.
    pub(super) fn read(sources: &'a Sources<'a>) -> Self {
        let mut layers = Self {
            sources,
            entries: BTreeMap::new(),
            mistakes: Vec::new(),
            warnings: Vec::new(),
            mistaken: BTreeSet::new(),
            file_is_broken: false,
        };
        file::read(&mut layers);
        environment::read(&mut layers);
        for flag in &sources.flags {
            layers.take_flag(flag);
        }
        layers.take_secret_files();
        layers.take_secret_file("log.url", "log.url_file");
        layers.take_secret_file("operations.token", "operations.token_file");
        layers
    }

    /// The settings of one of several issuers: those of its table, and of `inherited` where it says nothing.
    pub(super) fn of_issuer(&self, table: &[(String, Raw)], inherited: &[&'static str]) -> Self {
        let mut part = Self {
            sources: self.sources,
            entries: BTreeMap::new(),
            mistakes: Vec::new(),
            warnings: Vec::new(),
            mistaken: BTreeSet::new(),
            file_is_broken: false,
        };
        for path in inherited {
            if let Some(Entry { value, source }) = self.entries.get(path) {
                part.entries.insert(path, Entry { value: value.clone(), source: source.clone() });
            }
        }
        let source = self.entries.get("auth.issuers").map_or(Source::Default, |entry| entry.source.clone());
        for (name, raw) in table {
            let path = format!("auth.{name}");
            match keys::find(&path) {
                Some(key) => part.take(key, raw, source.clone()),
                None => part.unknown(&path, &path, raw, source.clone()),
            }
        }
        part.take_secret_files();
        part
    }

    fn take_secret_files(&mut self) {
        self.take_secret_file("auth.secret", "auth.secret_file");
        self.take_previous_secret_file();
        self.take_secret_file("auth.introspection_client_secret", "auth.introspection_client_secret_file");
    }

    /// As the others; but an empty one says that there is none any more.
    fn take_previous_secret_file(&mut self) {
        let file = self.text("auth.previous_secret_file").and_then(|path| (self.sources.read)(Path::new(&path)).ok());
        if !file.is_some_and(|content| content.trim_ascii().is_empty()) {
            self.take_secret_file("auth.previous_secret", "auth.previous_secret_file");
        }
    }

    /// Applies one setting over those before it.
    pub(super) fn take(&mut self, key: &'static Key, raw: &Raw, source: Source) {
        match value::parse(key.kind, raw) {
            Ok(value) => {
                self.entries.insert(key.path, Entry { value, source });
            }
            Err(expected) => {
                self.mistaken.insert(key.path);
                let mut mistake = Mistake::of(key, raw.shown(key.kind), source.clone(), expected);
                if let (keys::Kind::LogUrl, Raw::Untyped(text) | Raw::Text(text)) = (key.kind, raw) {
                    mistake.example = mistake::example_with(key, &source, example_of_log(text.trim()));
                }
                self.mistakes.push(mistake);
            }
        }
    }

    /// Notes a key that does not exist. Its value is shown only if what was probably meant is no secret.
    pub(super) fn unknown(&mut self, path: &str, name: &str, raw: &Raw, source: Source) {
        let example = |key: &'static Key| mistake::example(key, &source);
        let (key, hidden) = (name.to_owned(), "(hidden)".to_owned());
        if let Some(first) = keys::KEYS.iter().find(|key| key.split().0 == path) {
            // Only of numbers it is plain that they are no secrets.
            let value = match raw {
                Raw::Untyped(text) if path != "auth" && text.parse::<i64>().is_ok() => mistake::cut(text),
                _ => hidden,
            };
            let separator = if name == path { '.' } else { '_' };
            let expected = format!("nothing: {path} is a table, whose settings are {name}{separator}…");
            let example = example(first);
            self.mistakes.push(Mistake { key, value: Some(value), source: Some(source), expected, example });
            return;
        }
        let is_variable = matches!(source, Source::Variable(_));
        let meant = meant(path, is_variable);
        let sounds_secret = ["secret", "password", "token", "key"].iter().any(|word| path.contains(word));
        let value = match (meant, raw) {
            (Some(key), raw) if !sounds_secret => raw.shown(key.kind),
            (None, Raw::Integer(_) | Raw::Boolean(_)) if !sounds_secret => raw.shown(keys::Kind::Text),
            // From a flag or a variable even a number is text.
            (None, Raw::Untyped(text)) if !sounds_secret && text.parse::<i32>().is_ok() => text.clone(),
            _ => hidden,
        };
        let (expected, example) = match meant {
            Some(key) => {
                let meant = if is_variable { key.variable() } else { key.path.to_owned() };
                (format!("a name that is known; did you mean {meant}?"), example(key))
            }
            None => ("a name that is known".to_owned(), EXAMPLE_OF_NOTHING_KNOWN.to_owned()),
        };
        self.mistakes.push(Mistake { key, value: Some(value), source: Some(source), expected, example });
    }

    fn take_flag(&mut self, flag: &Flag) {
        let source = Source::Flag(flag.name.clone());
        let Some(value) = &flag.value else {
            self.mistakes.push(Mistake {
                key: flag.key.clone(),
                value: None,
                source: Some(source),
                expected: "a key, `=` and a value".to_owned(),
                example: "--set tasks.max=50000".to_owned(),
            });
            return;
        };
        let raw = Raw::Untyped(value.clone());
        match keys::find(&flag.key) {
            Some(key) => self.take(key, &raw, source),
            None => self.unknown(&flag.key, &flag.key, &raw, source),
        }
    }

    fn take_secret_file(&mut self, path: &'static str, file_path: &'static str) {
        let (Some(key), Some(file_key)) = (keys::find(path), keys::find(file_path)) else { return };
        let Some(entry) = self.entries.get(file_path) else { return };
        let Value::Text(file) = entry.value.clone() else { return };
        if let Some(other) = self.entries.get(path) {
            let expected = format!("only one of {path} and {file_path}; {path} came from {}", other.source);
            self.mistake(file_key, expected);
            return;
        }
        let content = match (self.sources.read)(Path::new(&file)) {
            Ok(content) => content,
            Err(error) => return self.mistake(file_key, format!("a file that can be read ({error})")),
        };
        let Ok(text) = String::from_utf8(content) else {
            return self.mistake(file_key, "a file with UTF-8 text");
        };
        let text = text.trim_end_matches(['\n', '\r']);
        self.take(key, &Raw::Untyped(text.to_owned()), Source::SecretFile(PathBuf::from(file)));
    }

    /// Refuses the value that a key has.
    pub(super) fn mistake(&mut self, key: &'static Key, expected: impl Into<String>) {
        let (value, source) = self.shown(key);
        self.mistaken.insert(key.path);
        self.mistakes.push(Mistake::of(key, value, source, expected));
    }

    /// As [`Layers::mistake`], by path.
    pub(super) fn refuse(&mut self, path: &'static str, expected: impl Into<String>) {
        if let Some(key) = keys::find(path) {
            self.mistake(key, expected);
        }
    }

    /// Notes a key that is needed and was not given.
    pub(super) fn missing(&mut self, path: &'static str, expected: &str, example: &str) {
        if self.file_is_broken {
            return;
        }
        self.mistakes.push(Mistake {
            key: path.to_owned(),
            value: None,
            source: None,
            expected: expected.to_owned(),
            example: example.to_owned(),
        });
    }

    /// The effective value as it may be shown, and where it came from.
    pub(super) fn shown(&self, key: &'static Key) -> (String, Source) {
        let Some(entry) = self.entries.get(key.path) else {
            return (
                key.default.map_or("(not set)".to_owned(), |text| value::to_toml(key.kind, text)),
                Source::Default,
            );
        };
        let shown = match &entry.value {
            Value::Text(text) => mistake::shown(key.kind, text),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            Value::List(items) => mistake::cut(&value::to_toml(key.kind, &items.join(","))),
            Value::Address(address) => address.to_string(),
            Value::Tables(tables) => format!("[{}]", vec!["{…}"; tables.len().min(16)].join(", ")),
        };
        (shown, entry.source.clone())
    }

    /// Given by a layer, rightly or not.
    pub(super) fn is_given(&self, path: &'static str) -> bool {
        self.entries.contains_key(path) || self.mistaken.contains(path)
    }

    /// Its value was refused: checks that compare it with others are pointless.
    pub(super) fn is_mistaken(&self, path: &'static str) -> bool {
        self.mistaken.contains(path)
    }

    fn value(&self, path: &'static str) -> Option<Value> {
        if let Some(entry) = self.entries.get(path) {
            return Some(entry.value.clone());
        }
        let key = keys::find(path)?;
        key.default.and_then(|text| value::parse(key.kind, &Raw::Untyped(text.to_owned())).ok())
    }

    pub(super) fn integer(&self, path: &'static str) -> Option<u64> {
        match self.value(path) {
            Some(Value::Integer(number)) => Some(number),
            _ => None,
        }
    }

    /// For keys with a default. A test compares the defaults of all keys with what the table says.
    pub(super) fn number(&self, path: &'static str) -> u64 {
        self.integer(path).unwrap_or_default()
    }

    pub(super) fn boolean(&self, path: &'static str) -> bool {
        self.value(path) == Some(Value::Boolean(true))
    }

    pub(super) fn text(&self, path: &'static str) -> Option<String> {
        match self.value(path) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self, path: &'static str) -> Vec<String> {
        match self.value(path) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    pub(super) fn tables(&self, path: &'static str) -> Vec<Vec<(String, Raw)>> {
        match self.value(path) {
            Some(Value::Tables(tables)) => tables,
            _ => Vec::new(),
        }
    }

    pub(super) fn address(&self, path: &'static str) -> Option<SocketAddr> {
        match self.value(path) {
            Some(Value::Address(address)) => Some(address),
            _ => None,
        }
    }

    /// All mistakes, or none.
    pub(super) fn finish(&mut self) -> Result<(), Mistakes> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(Mistakes(std::mem::take(&mut self.mistakes))) }
    }
}

/// The key whose path is nearest, or whose variable is: `TASKCAST_LOG` is not named after its path.
fn meant(path: &str, is_variable: bool) -> Option<&'static Key> {
    let by_path = suggest::nearest(path, keys::KEYS.iter().map(|key| key.path.to_owned()));
    if by_path.is_some() || !is_variable {
        return by_path.as_deref().and_then(keys::find);
    }
    let name = |key: &Key| key.variable().trim_start_matches(environment::PREFIX).to_ascii_lowercase();
    let near = suggest::nearest(&path.replace('.', "_"), keys::KEYS.iter().map(name))?;
    keys::KEYS.iter().find(|key| name(key) == near)
}

/// An address of the scheme that was begun with.
fn example_of_log(text: &str) -> &'static str {
    match text.split(':').next() {
        Some("amqp") => "amqp://user:password@localhost:5672/%2F",
        Some("amqps") => "amqps://user:password@rabbitmq.example.com:5671/%2F",
        Some("rediss") => "rediss://:password@redis.example.com:6379/0",
        Some("redis+sentinel") => "redis+sentinel://:password@localhost:26379,localhost:26380/mymaster",
        Some("rediss+sentinel") => {
            "rediss+sentinel://:password@redis-1.example.com:26379,redis-2.example.com:26379/mymaster"
        }
        _ => "redis://localhost:6379/0",
    }
}
