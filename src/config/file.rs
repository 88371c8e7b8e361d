//! The TOML file, read so that each mistake can name its line.

use std::{ops::Range, path::PathBuf};

use toml::de::{DeTable, DeValue};

use super::{
    environment::CONFIG,
    keys::{self, TABLES},
    layers::Layers,
    mistake::{EXAMPLE_OF_NOTHING_KNOWN, Mistake, Source, example, without_credentials},
    suggest,
    value::Raw,
};

/// More syntax errors than this are consequences of the first.
const SYNTAX_ERRORS_MAX: usize = 5;

/// The text of the file, and where it is.
struct File {
    path: PathBuf,
    text: String,
}

impl File {
    fn source(&self, at: Option<Range<usize>>) -> Source {
        let before = at.and_then(|range| self.text.get(..range.start)).unwrap_or_default();
        Source::File { path: self.path.clone(), line: before.matches('\n').count() + 1 }
    }
}

/// Takes the file named by `--config` or `TASKCAST_CONFIG`, if there is one.
pub(super) fn read(layers: &mut Layers<'_>) {
    let Some((path, named_by)) = location(layers) else { return };
    let mut broken = |value: String, source: Source, expected: String, example: String| {
        layers.file_is_broken = true;
        let key = "configuration file".to_owned();
        layers.mistakes.push(Mistake { key, value: Some(value), source: Some(source), expected, example });
    };
    let another = match &named_by {
        Source::Variable(name) => format!("{name}=taskcast.toml"),
        _ => "--config taskcast.toml".to_owned(),
    };
    let another = format!("{another} (`taskcast default-config > taskcast.toml` writes one)");
    let text = match (layers.sources.read)(&path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => {
            return broken(path.display().to_string(), named_by, "a file with UTF-8 text".to_owned(), another);
        }
        Err(error) => {
            return broken(path.display().to_string(), named_by, format!("a file that can be read ({error})"), another);
        }
    };
    let file = File { path, text };
    let (table, errors) = DeTable::parse_recoverable(&file.text);
    for error in errors.iter().take(SYNTAX_ERRORS_MAX) {
        let name = file.path.display().to_string();
        let source = file.source(error.span());
        let example = example_near(&file.text, &source);
        broken(name, source, format!("TOML ({})", error.message()), example);
    }
    if errors.is_empty() {
        take_root(layers, &file, table.get_ref());
    }
}

/// How the key of a line that is no TOML would be set well: the line's name, in the table that it stands in.
fn example_near(text: &str, source: &Source) -> String {
    let Source::File { line, .. } = source else { return EXAMPLE_OF_NOTHING_KNOWN.to_owned() };
    let lines: Vec<&str> = text.lines().take(*line).map(str::trim).collect();
    let mut lines = lines.into_iter().rev();
    let broken = lines.next().unwrap_or_default();
    let header = |line: &str| line.starts_with('[').then(|| line.trim_matches(['[', ']', ' ']).to_owned());
    let key = if let Some(table) = header(broken) {
        first_key(&table)
    } else {
        let name = broken.split(['=', ' ']).next().unwrap_or_default();
        let path = lines.find_map(header).map_or(name.to_owned(), |table| format!("{table}.{name}"));
        keys::find(&path)
    };
    key.map_or(EXAMPLE_OF_NOTHING_KNOWN.to_owned(), |key| example(key, source))
}

fn first_key(table: &str) -> Option<&'static keys::Key> {
    keys::KEYS.iter().find(|key| key.split().0 == table && !table.is_empty())
}

fn location(layers: &Layers<'_>) -> Option<(PathBuf, Source)> {
    if let Some(path) = &layers.sources.file {
        return Some((path.clone(), Source::Flag("--config".to_owned())));
    }
    let named = layers.sources.environment.iter().find(|(name, value)| name == CONFIG && !value.is_empty());
    named.map(|(_, value)| (PathBuf::from(value), Source::Variable(CONFIG.to_owned())))
}

fn take_root(layers: &mut Layers<'_>, file: &File, root: &DeTable<'_>) {
    let mut entries: Vec<_> = root.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        let source = file.source(Some(name.span()));
        let (name, value) = (name.get_ref().as_ref(), value.get_ref());
        let is_table_name = TABLES.iter().any(|(table, _)| *table == name && !table.is_empty());
        match value {
            DeValue::Table(table) if is_table_name => take_table(layers, file, name, table),
            _ if is_table_name => not_a_table(layers, name, &raw(value), &source),
            DeValue::Table(_) if keys::find(name).is_none() => unknown_table(layers, name, source),
            _ => take(layers, name, value, source),
        }
    }
}

fn take_table(layers: &mut Layers<'_>, file: &File, table_name: &str, table: &DeTable<'_>) {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        let source = file.source(Some(name.span()));
        take(layers, &format!("{table_name}.{}", name.get_ref()), value.get_ref(), source);
    }
}

fn take(layers: &mut Layers<'_>, path: &str, value: &DeValue<'_>, source: Source) {
    let raw = raw(value);
    match keys::find(path) {
        Some(key) => layers.take(key, &raw, source),
        None => layers.unknown(path, path, &raw, source),
    }
}

/// `log = 100`, where `[log]` belongs: the mistake that once stopped a service of this kind in production.
fn not_a_table(layers: &mut Layers<'_>, name: &str, raw: &Raw, source: &Source) {
    let value = match raw {
        Raw::Text(text) if name == "log" => format!("\"{}\"", without_credentials(text)),
        Raw::Integer(_) | Raw::Boolean(_) if name != "auth" => raw.shown(keys::Kind::Text),
        _ => "(hidden)".to_owned(),
    };
    layers.mistakes.push(Mistake {
        key: name.to_owned(),
        value: Some(value),
        source: Some(source.clone()),
        expected: format!("a table [{name}], not {}", raw.type_name()),
        example: first_key(name).map_or(EXAMPLE_OF_NOTHING_KNOWN.to_owned(), |key| example(key, source)),
    });
}

fn unknown_table(layers: &mut Layers<'_>, name: &str, source: Source) {
    let names = TABLES.iter().filter(|(table, _)| !table.is_empty()).map(|(table, _)| (*table).to_owned());
    let known: Vec<String> = names.clone().map(|table| format!("[{table}]")).collect();
    let near = suggest::nearest(name, names);
    let hint = near.as_ref().map(|near| format!("; did you mean [{near}]?")).unwrap_or_default();
    let key = near.as_deref().and_then(first_key);
    let example = key.map_or(EXAMPLE_OF_NOTHING_KNOWN.to_owned(), |key| example(key, &source));
    layers.mistakes.push(Mistake {
        key: format!("[{name}]"),
        value: Some("{…}".to_owned()),
        source: Some(source),
        expected: format!("one of the tables {}{hint}", known.join(", ")),
        example,
    });
}

/// An array as it would stand in the file; `None`: the text is no TOML.
pub(super) fn array(text: &str) -> Option<Raw> {
    let document = format!("array = {text}");
    let table = DeTable::parse(&document).ok()?;
    table.get_ref().iter().next().filter(|_| table.get_ref().len() == 1).map(|(_, value)| raw(value.get_ref()))
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => {
            // Hexadecimal and its kin are legal TOML; what does not fit becomes text that no number key takes.
            match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(decimal) => Raw::Integer(decimal.to_string()),
                Err(_) => Raw::Integer(number.to_string()),
            }
        }
        DeValue::Boolean(flag) => Raw::Boolean(*flag),
        DeValue::Array(items) => Raw::Array(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Float(number) => Raw::Other("a number with a fraction", number.to_string()),
        DeValue::Datetime(date) => Raw::Other("a date", date.to_string()),
        DeValue::Table(table) => {
            Raw::Table(table.iter().map(|(name, value)| (name.get_ref().to_string(), raw(value.get_ref()))).collect())
        }
    }
}
