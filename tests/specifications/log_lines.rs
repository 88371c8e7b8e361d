//! `LOGS.md` has every line that the code can log: its level, its words, its fields; and what an operator does about it. The
//! code is read as text. What a running service logs is held against the same table by `tests/service/log_lines.rs`.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// What every line has in JSON; a field of such a name would stand there twice.
const OWN_FIELDS: [&str; 4] = ["timestamp", "level", "target", "message"];

const HEAD: &str = "| level | message | fields | what to do |";

/// The words that a line is known by, and how it is logged.
type Lines = BTreeMap<(usize, String), Vec<String>>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files(&entry, found);
        } else if entry.extension().is_some_and(|end| end == "rs") && !entry.to_string_lossy().ends_with("_tests.rs") {
            found.push(entry);
        }
    }
}

/// Splits what stands between the parentheses of a macro at its commas; the first closing one ends it.
fn arguments(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut in_text) = (vec![String::new()], 0, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let part = parts.last_mut().unwrap();
        match character {
            '\\' if in_text => {
                // A line that goes on in the next one, without its indent.
                match characters.next().unwrap() {
                    '\n' => characters = characters.as_str().trim_start().chars(),
                    escaped => part.push(escaped),
                }
                continue;
            }
            '"' => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' if !in_text && depth == 0 => return parts,
            ')' | ']' | '}' if !in_text => depth -= 1,
            ',' if !in_text && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    panic!("no end: {text:.80}");
}

/// Every call in a file: the level, the message, the fields.
fn calls(text: &str) -> Vec<(usize, String, Vec<String>)> {
    let mut found = Vec::new();
    for (level, name) in LEVELS.iter().enumerate() {
        let call = format!("{name}!(");
        for (at, _) in text.match_indices(&call) {
            let is_another = text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
            let is_comment = text[..at].rsplit('\n').next().is_some_and(|line| line.trim_start().starts_with("//"));
            if is_another || is_comment {
                continue;
            }
            let mut parts: Vec<String> =
                arguments(&text[at + call.len()..]).iter().map(|part| part.trim().to_owned()).collect();
            parts.retain(|part| !part.is_empty());
            let message = parts.pop().filter(|last| last.starts_with('"')).unwrap_or_else(|| panic!("{parts:?}"));
            let field = |part: &String| {
                let name = part.split('=').next().unwrap().trim().trim_start_matches(['%', '?']);
                name.rsplit('.').next().unwrap().to_owned()
            };
            let mut fields: Vec<String> = parts.iter().map(field).collect();
            fields.sort();
            found.push((level, message.trim_matches('"').to_owned(), fields));
        }
    }
    found
}

/// Tests stand last in a file; modules of tests alone may be named before.
fn without_tests(text: &str) -> &str {
    let mut ends = text.match_indices("#[cfg(test)]\n").filter(|(at, marker)| {
        text[at + marker.len()..].lines().next().is_some_and(|line| line.contains("mod tests {"))
    });
    ends.next().map_or(text, |(at, _)| &text[..at])
}

fn lines() -> Lines {
    let mut paths = Vec::new();
    files(&root().join("src"), &mut paths);
    let mut lines = Lines::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for (level, message, fields) in calls(without_tests(&text)) {
            assert!(!message.contains(['{', '|']), "{}: a value belongs into a field: {message}", path.display());
            for field in &fields {
                let is_name = field.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                assert!(is_name && !OWN_FIELDS.contains(&field.as_str()), "{}: {field:?}", path.display());
            }
            if let Some(other) = lines.insert((level, message.clone()), fields.clone()) {
                assert_eq!(other, fields, "{}: two lines with these words: {message}", path.display());
            }
        }
    }
    lines
}

/// What the table says is to be done, by message.
fn advice(text: &str) -> BTreeMap<String, String> {
    let rows = text.split_once(HEAD).unwrap().1.lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    cells.filter(|cells| cells.len() == 4).map(|cells| (cells[1].clone(), cells[3].clone())).collect()
}

fn derived(text: &str, lines: &Lines) -> String {
    let (before, advice) = (text.split_once(HEAD).unwrap().0, advice(text));
    let mut out = format!("{before}{HEAD}\n|---|---|---|---|\n");
    for ((level, message), fields) in lines {
        let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
        let advice = advice.get(message).map_or("", String::as_str);
        writeln!(out, "| {} | {message} | {} | {advice} |", LEVELS[*level], fields.join(", ")).unwrap();
    }
    out
}

#[test]
fn the_table_of_log_lines_has_every_line_of_the_code_and_no_other() {
    let path = root().join("LOGS.md");
    let (text, lines) = (fs::read_to_string(&path).unwrap(), lines());
    assert!(lines.len() > 50, "{}", lines.len());
    let derived = derived(&text, &lines);
    if std::env::var_os("TASKCAST_WRITE_SPECIFICATIONS").is_some() {
        return fs::write(path, derived).unwrap();
    }
    let drifted = text.lines().zip(derived.lines()).find(|(held, derived)| held != derived);
    assert_eq!(drifted, None, "LOGS.md is not what the code says: TASKCAST_WRITE_SPECIFICATIONS=1");
    assert_eq!(text.len(), derived.len());
}

#[test]
fn every_line_that_an_operator_is_to_read_says_what_to_do() {
    let advice = advice(&fs::read_to_string(root().join("LOGS.md")).unwrap());
    for ((level, message), _) in lines() {
        let is_for_developers = LEVELS[level] == "debug" || LEVELS[level] == "trace";
        let said = advice.get(&message).is_some_and(|advice| !advice.is_empty());
        assert!(said || is_for_developers, "LOGS.md does not say what to do about: {message}");
    }
}

#[test]
fn a_line_is_found_however_it_is_written() {
    let text = "warn!(\n    a = b.c(1, 2),\n    %d,\n    self.e,\n    \"one, \\\n     two (three)\"\n);\n// info!(\"no\")\nmy_info!(x)";
    let fields = ["a", "d", "e"].map(str::to_owned).to_vec();
    assert_eq!(calls(text), [(1, "one, two (three)".to_owned(), fields)]);
}
