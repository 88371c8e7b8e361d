//! Style as a test: what ARCHITECTURE.md promises about the shape of the code, checked on every file.
//!
//! The rules are the tables right below; change one there, with its reason, and ARCHITECTURE.md with it. Each check is a
//! function from files to complaints, and beside each stands a test that shows it complaining.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The modules of src/, lowest first. `crate::` points only to a lower layer.
const LAYERS: &[&[&str]] = &[
    &["settled"],
    &["clock", "proto", "metrics", "tls", "client"],
    &["traces"],
    &["log", "auth", "hub", "limits"],
    &["input", "session"],
    &["http"],
    &["config", "telemetry", "lifecycle", "app"],
    &["cli"],
    &["main"],
];

/// The edges within a layer. ARCHITECTURE.md has each as `from → to`.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("metrics", "proto", "labels are the contract's enums, so that no name is written twice"),
    ("session", "input", "a client's cancel_task is an event like any other"),
    ("app", "config", "the composition starts from a checked configuration"),
];

/// Crates with one door: a change of the library is a change of one module.
const DOORS: &[(&str, &str)] = &[
    ("lapin", "log"),
    ("redis", "log"),
    ("jsonwebtoken", "auth"),
    ("governor", "limits"),
    ("ipnet", "limits"),
    ("prometheus", "metrics"),
    ("prost", "proto"),
    // What collectors are told: src/traces/otlp.rs.
    ("prost", "traces"),
    ("warp", "http"),
    ("hyper", "http"),
    ("hyper_util", "http"),
    // The way out: src/client.rs, and what those who know tokens are asked.
    ("hyper", "client"),
    ("hyper_util", "client"),
    ("hyper_rustls", "client"),
    ("http_body_util", "client"),
    ("hyper", "auth"),
    ("http_body_util", "auth"),
    ("toml", "config"),
    ("clap", "cli"),
];

/// Files and folders that only compute: they neither wait nor read a clock.
const PURE: &[&str] = &["src/proto/", "src/hub/", "src/auth/access.rs", "src/session/machine.rs"];
const IMPURE: &[&str] = &[".await", "clock::now(", "clock::unique_id(", "clock::jitter("];

const FILE_LINES_MAX: usize = 450;
const TEST_NAME_WORDS_MIN: usize = 3;

/// Folders that are one person's or one machine's own: an absolute path into one of them holds nowhere else.
const PRIVATE_FOLDERS: &[&str] = &["home", "root", "Users", "tmp"];

/// How parts of a host's name begin that serves packages, or stands between somebody and such a host. Which one is used is
/// a matter of the machine that builds, not of the project.
const PACKAGE_HOSTS: &[&str] = &[
    "artifact",
    "cache",
    "crates",
    "debian",
    "mirror",
    "nexus",
    "npm",
    "package",
    "proxy",
    "pypi",
    "pythonhosted",
    "registry",
];

/// What no code says.
const UNWRITABLE: &[(&str, &str)] = &[
    (concat!("#[al", "low("), "use #[expect(.., reason = \"..\")]: it says why, and goes away when it is not needed"),
    (concat!("#![al", "low("), "use #![expect(.., reason = \"..\")]: it says why, and goes away when it is not needed"),
    ("impl Reject", "a rejection means `try the next route`, not `error`; handlers return Result<Response, HttpError>"),
    ("super::super::", "write the path from crate::, so that the layers can be checked"),
];

// ---- the rules, on the project -------------------------------------------------------------------------------------

#[test]
fn modules_point_only_downwards() -> io::Result<()> {
    complain(&check_layers(&rust_files("src")?, LAYERS, SIDEWAYS));
    Ok(())
}

#[test]
fn architecture_mentions_every_sideways_edge() -> io::Result<()> {
    complain(&check_edges_are_documented(&fs::read_to_string(root().join("ARCHITECTURE.md"))?, SIDEWAYS));
    Ok(())
}

#[test]
fn each_library_has_one_door() -> io::Result<()> {
    complain(&check_doors(&rust_files("src")?, DOORS));
    Ok(())
}

#[test]
fn files_are_short_and_say_what_they_own() -> io::Result<()> {
    complain(&check_files(&rust_files("src")?));
    Ok(())
}

#[test]
fn pure_code_neither_waits_nor_reads_clocks() -> io::Result<()> {
    complain(&check_purity(&rust_files("src")?, PURE));
    Ok(())
}

#[test]
fn no_code_has_what_is_banned() -> io::Result<()> {
    let files = [rust_files("src")?, rust_files("tests")?].concat();
    complain(&check_unwritable(&files));
    Ok(())
}

#[test]
fn no_tracked_file_speaks_of_one_machine() -> io::Result<()> {
    complain(&check_unsayable(&project_files()?));
    Ok(())
}

#[test]
fn every_version_is_a_released_one() -> io::Result<()> {
    complain(&check_versions(&fs::read_to_string(root().join("Cargo.toml"))?));
    Ok(())
}

#[test]
fn every_dependency_is_used() -> io::Result<()> {
    let cargo = fs::read_to_string(root().join("Cargo.toml"))?;
    let src = rust_files("src")?;
    let tests = [src.clone(), rust_files("tests")?, rust_files("benches")?].concat();
    let build = rust_files("build.rs")?;
    let mut complaints = check_dependencies(&cargo, "dependencies", &src);
    complaints.extend(check_dependencies(&cargo, "dev-dependencies", &tests));
    complaints.extend(check_dependencies(&cargo, "build-dependencies", &build));
    complain(&complaints);
    Ok(())
}

#[test]
fn every_test_that_security_promises_exists() -> io::Result<()> {
    let files = [rust_files("src")?, rust_files("tests")?].concat();
    let exists = |path: &str| root().join(path).exists();
    complain(&check_threats(&fs::read_to_string(root().join("SECURITY.md"))?, &files, exists));
    Ok(())
}

#[test]
fn test_names_are_sentences() -> io::Result<()> {
    let files = [rust_files("src")?, rust_files("tests")?].concat();
    assert!(files.iter().map(|file| tests_of(file).len()).sum::<usize>() > 20, "the tests were not found");
    complain(&check_test_names(&files));
    Ok(())
}

// ---- the checks ----------------------------------------------------------------------------------------------------

/// One file, and the same with comments and the contents of strings blanked out: lines and columns stay.
#[derive(Clone)]
struct File {
    /// From the root of the project, with `/`.
    path: String,
    text: String,
    code: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        let is_rust = Path::new(path).extension().is_some_and(|extension| extension == "rs");
        let code = if is_rust { code_of(text) } else { text.to_owned() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// The module that a file in src/ belongs to: `hub` for `src/hub/shard.rs` and for `src/hub.rs`.
    fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split_once('/').map_or_else(|| inside.strip_suffix(".rs").unwrap_or(inside), |(module, _)| module)
    }

    /// Whether `crate` is this file's parent, so that `super::` names modules as `crate::` does.
    fn is_top_of_module(&self) -> bool {
        self.path.matches('/').count() == 1 || self.path.ends_with("/mod.rs") && self.path.matches('/').count() == 2
    }

    /// `path:line`, for people and editors.
    fn at(&self, offset: usize) -> String {
        let line = self.code.get(..offset).unwrap_or_default().matches('\n').count() + 1;
        format!("{}:{line}", self.path)
    }
}

fn check_layers(files: &[File], layers: &[&[&str]], sideways: &[(&str, &str, &str)]) -> Vec<String> {
    let layer_of = |module: &str| layers.iter().position(|layer| layer.contains(&module));
    let mut complaints = Vec::new();
    let mut used = BTreeSet::new();
    for file in files.iter().filter(|file| file.path != "src/lib.rs") {
        let from = file.module();
        let Some(own_layer) = layer_of(from) else {
            complaints.push(format!("{}:1: the module `{from}` is in no layer", file.path));
            continue;
        };
        for (to, offset) in references(file) {
            let allowed = match layer_of(&to) {
                // An item of the crate's root, or a macro: there are no modules beyond the layers.
                None => continue,
                Some(layer) => layer < own_layer || to == from,
            };
            let listed = sideways.iter().any(|&(a, b, _)| a == from && b == to && layer_of(&to) == Some(own_layer));
            if listed {
                used.insert((from.to_owned(), to.clone()));
            } else if !allowed {
                complaints.push(format!("{}: `{from}` must not use `{to}`, which is not below it", file.at(offset)));
            }
        }
    }
    for (from, to, _) in sideways {
        if !used.contains(&((*from).to_owned(), (*to).to_owned())) {
            complaints.push(format!("tests/tidy.rs: nobody uses the edge `{from} → {to}` any more: remove it"));
        }
    }
    complaints
}

fn check_edges_are_documented(architecture: &str, sideways: &[(&str, &str, &str)]) -> Vec<String> {
    let plain = architecture.replace('`', "");
    let is_missing = |from: &str, to: &str| !plain.contains(&format!("{from} → {to}"));
    sideways
        .iter()
        .filter(|(from, to, _)| is_missing(from, to))
        .map(|(from, to, _)| format!("ARCHITECTURE.md: the sideways edge `{from} → {to}` is not mentioned"))
        .collect()
}

fn check_doors(files: &[File], doors: &[(&str, &str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let is_door = |library: &str| doors.iter().any(|&(name, door)| name == library && door == file.module());
        for &(library, door) in doors.iter().filter(|(library, _)| !is_door(library)) {
            for offset in words(&file.code, library).filter(|&offset| names_a_crate(&file.code, offset, library)) {
                complaints.push(format!("{}: `{library}` is named only in src/{door}", file.at(offset)));
            }
        }
    }
    complaints
}

fn check_files(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            complaints.push(format!("{}:{lines}: longer than {FILE_LINES_MAX} lines: split it", file.path));
        }
        let opening = file.text.lines().next().unwrap_or_default();
        if !opening.starts_with("//! ") {
            complaints.push(format!("{}:1: does not open with `//!`: what it owns and refuses to know", file.path));
        }
    }
    complaints
}

fn check_purity(files: &[File], pure: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for place in pure {
        let inside: Vec<&File> = files.iter().filter(|file| file.path.starts_with(place)).collect();
        if inside.is_empty() {
            complaints.push(format!("tests/tidy.rs: {place} does not exist: say where that code went"));
        }
        // A test may wait for what it tests.
        for file in inside.into_iter().filter(|file| !file.path.ends_with("_tests.rs")) {
            for impure in IMPURE {
                for (offset, _) in file.code.match_indices(impure) {
                    complaints.push(format!("{}: `{impure}` in code that only computes", file.at(offset)));
                }
            }
        }
    }
    complaints
}

fn check_unwritable(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (banned, reason) in UNWRITABLE {
            for (offset, _) in file.code.match_indices(banned) {
                complaints.push(format!("{}: `{banned}`: {reason}", file.at(offset)));
            }
        }
    }
    complaints
}

fn check_unsayable(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let at = format!("{}:{}", file.path, number + 1);
            // A test may have its files where such files belong.
            let is_allowed = |folder: &str| folder == "tmp" && file.path.starts_with("tests/");
            for folder in PRIVATE_FOLDERS.iter().filter(|folder| !is_allowed(folder) && leads_into(line, folder)) {
                complaints.push(format!("{at}: names a path in /{folder}, which is of one machine"));
            }
            for host in hosts(line).filter(|host| serves_packages(host)) {
                complaints.push(format!("{at}: names {host}, which looks like a host of packages"));
            }
        }
    }
    complaints
}

/// Whether an absolute path in `line` begins with `folder` and goes on; not `there/home/x`, nor the path of a URL.
fn leads_into(line: &str, folder: &str) -> bool {
    line.match_indices(&format!("/{folder}/")).any(|(offset, whole)| {
        let before = line[..offset].chars().next_back();
        let after = line[offset + whole.len()..].chars().next();
        let is_absolute = before.is_none_or(|last| !last.is_alphanumeric() && !"_.-/~*}$)>]".contains(last));
        is_absolute && after.is_some_and(|next| next.is_alphanumeric() || "_.-$<{".contains(next))
    })
}

/// The hosts of the URLs in `line`, without what may stand before an `@`.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("//").map(|(offset, slashes)| {
        let authority = &line[offset + slashes.len()..];
        let is_part = |character: char| character.is_alphanumeric() || ".-_~%!$&'*+=:@[]".contains(character);
        let authority = &authority[..authority.find(|character| !is_part(character)).unwrap_or(authority.len())];
        let host = authority.rsplit('@').next().unwrap_or_default();
        host.split(':').next().unwrap_or_default()
    })
}

fn serves_packages(host: &str) -> bool {
    let host = host.to_lowercase();
    host.split(['.', '-']).any(|part| PACKAGE_HOSTS.iter().any(|beginning| part.starts_with(beginning)))
}

/// What is not released may change or vanish under whoever builds it.
fn check_versions(cargo: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in cargo.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
        // What stands between quotes; a version is what begins with a digit, after `=`, `^` or the like.
        for quoted in line.split('"').skip(1).step_by(2) {
            let version = quoted.trim_start_matches(|character: char| !character.is_alphanumeric());
            if version.starts_with(|first: char| first.is_ascii_digit()) && version.contains('-') {
                complaints.push(format!("Cargo.toml:{}: `{version}` is no release", number + 1));
            }
        }
    }
    complaints
}

fn check_dependencies(cargo: &str, table: &str, files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    let header = format!("[{table}]");
    let lines = cargo.lines().enumerate().skip_while(|(_, line)| *line != header).skip(1);
    for (number, line) in lines.take_while(|(_, line)| !line.starts_with('[')) {
        let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        let name = name.trim().split('.').next().unwrap_or_default().replace('-', "_");
        let is_used =
            files.iter().any(|file| words(&file.code, &name).any(|offset| names_a_crate(&file.code, offset, &name)));
        if !is_used {
            complaints.push(format!("Cargo.toml:{}: nothing uses `{name}` of [{table}]", number + 1));
        }
    }
    complaints
}

fn check_test_names(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        // A test that a macro makes has its name where the macro is called.
        for (name, offset) in tests_of(file).into_iter().filter(|(name, _)| !name.is_empty()) {
            if name.split('_').filter(|word| !word.is_empty()).count() < TEST_NAME_WORDS_MIN {
                complaints.push(format!("{}: the test `{name}` is not named by a sentence", file.at(offset)));
            }
        }
    }
    complaints
}

/// The last cell of each line of the table of threats names, between backticks, tests or files, and one at least.
fn check_threats(security: &str, files: &[File], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let tests: BTreeSet<String> =
        files.iter().flat_map(|file| tests_of(file).into_iter().map(|(name, _)| name)).collect();
    let Some((_, table)) = security.split_once("\n## Threats\n") else {
        return vec!["SECURITY.md: there is no chapter `Threats`".to_owned()];
    };
    let table = table.split("\n## ").next().unwrap_or_default();
    let mut complaints = Vec::new();
    for line in table.lines().filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let names: Vec<&str> =
            cells.last().map(|cell| cell.split('`').skip(1).step_by(2).collect()).unwrap_or_default();
        let threat = cells.first().map_or("", |cell| cell.trim());
        if cells.len() != 3 || names.is_empty() {
            complaints.push(format!("SECURITY.md: no test shows what stops `{threat}`"));
        }
        let unknown = names.iter().filter(|name| !tests.contains(**name) && !exists(name));
        complaints.extend(unknown.map(|name| format!("SECURITY.md: `{name}` against `{threat}` does not exist")));
    }
    complaints
}

// ---- reading Rust, as far as the checks need it --------------------------------------------------------------------

/// `text` with comments and the contents of strings and characters replaced by spaces; newlines stay.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skipped(bytes, at);
        if end > at {
            // One space for each byte, so that offsets stay; nobody reads the characters.
            code.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            code.push(if bytes[at].is_ascii() { char::from(bytes[at]) } else { ' ' });
            at += 1;
        }
    }
    code
}

/// Where the comment, string or character that starts at `at` ends; `at` if none does.
fn skipped(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let follows_word = at > 0 && is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + block_comment_length(rest),
        [b'"', ..] => at + string_length(rest),
        [b'r', b'"' | b'#', ..] if !follows_word => at + raw_string_length(rest, 1),
        [b'b', b'r', b'"' | b'#', ..] if !follows_word => at + raw_string_length(rest, 2),
        // A character, not a lifetime: 'x' or '\…'.
        [b'\'', b'\\', _, tail @ ..] => {
            at + 3 + tail.iter().position(|&byte| byte == b'\'').map_or(tail.len(), |end| end + 1)
        }
        [b'\'', _, b'\'', ..] => at + 3,
        [b'\'', first, tail @ ..] if !first.is_ascii() => {
            at + 2 + tail.iter().position(|&byte| byte == b'\'').map_or(tail.len(), |end| end + 1)
        }
        _ => at,
    }
}

fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Zero if it is no raw string but a raw identifier, `r#type`.
fn raw_string_length(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return 0;
    }
    let body = prefix + hashes + 1;
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let closing = rest[body..].windows(end.len()).position(|window| window == end);
    closing.map_or(rest.len(), |closing| body + closing + end.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `word` stands in `code` as a whole word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(offset, _)| offset).filter(move |&offset| {
        let starts = offset == 0 || !is_word(bytes[offset - 1]);
        starts && bytes.get(offset + word.len()).is_none_or(|&next| !is_word(next))
    })
}

/// Whether the word at `offset` starts a path in a crate, as in `redis::Client`, `use redis;` and `extern crate redis`;
/// not `crate::log::redis`, nor a variable or field of that name.
fn names_a_crate(code: &str, offset: usize, word: &str) -> bool {
    let before = code[..offset].trim_end();
    let after = code[offset + word.len()..].trim_start();
    let is_imported = ["use", "extern crate"].iter().any(|keyword| before.ends_with(keyword));
    let is_absolute = before.ends_with("::")
        && !before.trim_end_matches("::").ends_with(|last: char| last.is_alphanumeric() || last == '_' || last == '>');
    let is_inside_path = before.ends_with("::") && !is_absolute;
    let is_inside_group = before.ends_with(['{', ',']) && is_in_use_group(before);
    !is_inside_path && !is_inside_group && (is_imported || after.starts_with("::"))
}

/// Whether the end of `before` lies in the braces of `use path::{…}`: names there belong to that path.
fn is_in_use_group(before: &str) -> bool {
    let statement = &before[before.rfind(';').map_or(0, |end| end + 1)..];
    let Some(start) = words(statement, "use").last() else { return false };
    let statement = &statement[start..];
    let open = statement.matches('{').count();
    open > statement.matches('}').count() && !statement.trim_start_matches("use").trim_start().starts_with('{')
}

/// The modules that a file names by `crate::`, `taskcast::` or, at the top of a module, `super::`, and where.
fn references(file: &File) -> Vec<(String, usize)> {
    let code = &file.code;
    let mut found = Vec::new();
    let mut roots = vec!["crate", "taskcast"];
    if file.is_top_of_module() {
        roots.push("super");
    }
    for root in roots {
        for offset in words(code, root) {
            let Some(path) = code[offset + root.len()..].strip_prefix("::") else { continue };
            // `$crate::` and `other::taskcast::` are something else.
            if code[..offset].ends_with(['$', ':']) {
                continue;
            }
            let base = code.len() - path.len();
            if path.starts_with('{') {
                found.extend(group_members(path).map(|(name, at)| (name, base + at)));
            } else {
                found.push((first_word(path).to_owned(), offset));
            }
        }
    }
    found
}

/// The first words of the members of the group that opens `path`: `a` and `c` of `{a::{b, d}, c}`.
fn group_members(path: &str) -> impl Iterator<Item = (String, usize)> {
    let mut members = Vec::new();
    let mut depth = 0_usize;
    let mut is_start = false;
    for (at, character) in path.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && (character == '{' && at == 0 || character == ',') {
            is_start = true;
        } else if is_start && (character.is_alphanumeric() || character == '_') {
            members.push((first_word(&path[at..]).to_owned(), at));
            is_start = false;
        }
    }
    members.into_iter()
}

fn first_word(text: &str) -> &str {
    &text[..text.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(text.len())]
}

/// The names of the test functions, and where they stand.
fn tests_of(file: &File) -> Vec<(String, usize)> {
    let code = &file.code;
    let mut found = Vec::new();
    for attribute in ["#[test]", "#[tokio::test]", "#[tokio::test("] {
        for (offset, _) in code.match_indices(attribute) {
            let Some(function) = words(&code[offset..], "fn").next() else { continue };
            let start = offset + function + "fn ".len();
            found.push((first_word(code[start..].trim_start()).to_owned(), start));
        }
    }
    found
}

// ---- the project's files -------------------------------------------------------------------------------------------

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files under a folder, or one file; none if it does not exist.
fn rust_files(place: &str) -> io::Result<Vec<File>> {
    let mut paths = Vec::new();
    walk(&root().join(place), &mut paths)?;
    read(paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")))
}

/// What git tracks or would track; without git, all but hidden files and what is built or installed. What is no text is
/// left out.
fn project_files() -> io::Result<Vec<File>> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success() && !output.stdout.is_empty());
    let mut paths = Vec::new();
    if let Some(output) = listed {
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        paths.extend(names.split_terminator('\0').map(|name| root().join(name)).filter(|path| path.is_file()));
    } else {
        walk(&root(), &mut paths)?;
    }
    read(paths.into_iter())
}

fn walk(place: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    if place.is_file() {
        paths.push(place.to_owned());
    } else if place.is_dir() {
        for entry in fs::read_dir(place)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with('.') && !["target", "node_modules", "__pycache__"].contains(&name.as_str()) {
                walk(&path, paths)?;
            }
        }
    }
    Ok(())
}

fn read(paths: impl Iterator<Item = PathBuf>) -> io::Result<Vec<File>> {
    let mut files = BTreeMap::new();
    for path in paths {
        let name = path.strip_prefix(root()).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        if let Ok(text) = String::from_utf8(fs::read(&path)?) {
            files.insert(name.clone(), File::new(&name, &text));
        }
    }
    Ok(files.into_values().collect())
}

fn complain(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// ---- each check can fail -------------------------------------------------------------------------------------------

mod the_checks_themselves {
    use super::*;

    const LAYERS: &[&[&str]] = &[&["low", "side"], &["high"]];

    fn file(path: &str, text: &str) -> Vec<File> {
        vec![File::new(path, text)]
    }

    #[test]
    fn an_upward_reference_is_found_however_it_is_written() {
        for text in [
            "use crate::high::Thing;",
            "use crate::{\n    side as _,\n    high::{self, Thing},\n};",
            "fn f() -> crate::high::Thing {}",
            "pub(in crate::high) fn f() {}",
            "use super::high;",
        ] {
            let complaints = check_layers(&file("src/low/mod.rs", text), LAYERS, &[]);
            assert!(complaints.iter().any(|complaint| complaint.contains("`low` must not use `high`")), "{text}");
        }
        assert_eq!(
            check_layers(&file("src/low.rs", "\n\nuse crate::high;"), LAYERS, &[]),
            ["src/low.rs:3: `low` must not use `high`, which is not below it"]
        );
    }

    #[test]
    fn a_downward_or_own_reference_is_fine() {
        let text = "use crate::{low::{high, Thing}, high};\n// crate::top\nconst A: &str = \"crate::high\";";
        assert_eq!(check_layers(&file("src/high/part.rs", text), LAYERS, &[]), Vec::<String>::new());
        let comment = "// use crate::high;\n/* crate::high /* crate::high */ */ const A: &str = r#\"crate::high\"#;";
        assert_eq!(check_layers(&file("src/low.rs", comment), LAYERS, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_sideways_edge_must_be_listed_and_used() {
        let files = file("src/low.rs", "use crate::side;");
        let edge = [("low", "side", "a reason")];
        assert_eq!(check_layers(&files, LAYERS, &[]).len(), 1);
        assert_eq!(check_layers(&files, LAYERS, &edge).len(), 0);
        assert_eq!(check_layers(&file("src/low.rs", ""), LAYERS, &edge).len(), 1);
        assert_eq!(check_layers(&file("src/side.rs", "use crate::low;"), LAYERS, &edge).len(), 2);
    }

    #[test]
    fn a_module_outside_the_layers_is_found() {
        assert_eq!(check_layers(&file("src/utils.rs", ""), LAYERS, &[]).len(), 1);
    }

    #[test]
    fn an_undocumented_edge_is_found() {
        let edges = [("a", "b", ""), ("b", "c", "")];
        assert_eq!(check_edges_are_documented("The edges are `a` → `b` and `c → b`.", &edges).len(), 1);
    }

    #[test]
    fn a_second_door_is_found() {
        let doors = [("redis", "log")];
        for text in ["use redis::Client;", "use redis;", "fn f(_: ::redis::Client) {}", "type A = Vec<redis::Value>;"] {
            assert_eq!(check_doors(&file("src/hub/mod.rs", text), &doors).len(), 1, "{text}");
            assert_eq!(check_doors(&file("src/log/redis.rs", text), &doors).len(), 0, "{text}");
        }
        for text in ["let redis = 1;", "use crate::log::redis::A;", "use crate::log::{memory, redis::A};", "Log::Redis"]
        {
            assert_eq!(check_doors(&file("src/hub/mod.rs", text), &doors).len(), 0, "{text}");
        }
        let two_doors = [("redis", "log"), ("redis", "hub")];
        assert_eq!(check_doors(&file("src/hub/mod.rs", "use redis::Client;"), &two_doors).len(), 0);
        assert_eq!(check_doors(&file("src/http/mod.rs", "use redis::Client;"), &two_doors).len(), 2);
    }

    #[test]
    fn a_long_or_silent_file_is_found() {
        assert_eq!(check_files(&file("src/a.rs", "//! Owns a.\n")).len(), 0);
        assert_eq!(check_files(&file("src/a.rs", "// Owns a.\n")).len(), 1);
        assert_eq!(check_files(&file("src/a.rs", &format!("//! Owns a.\n{}", "\n".repeat(FILE_LINES_MAX)))).len(), 1);
    }

    #[test]
    fn waiting_or_reading_a_clock_in_pure_code_is_found() {
        let files = file("src/hub/mod.rs", "async fn f() {\n    g().await;\n    clock::now();\n} // .await");
        assert_eq!(check_purity(&files, &["src/hub/"]).len(), 2);
        assert_eq!(check_purity(&files, &["src/hub.rs"]).len(), 1, "a pure place that does not exist");
    }

    #[test]
    fn banned_code_is_found_but_not_in_words() {
        let banned = concat!("#[al", "low(dead_code)]\nimpl Reject for A {}\nuse super::super::b;");
        assert_eq!(check_unwritable(&file("src/a.rs", banned)).len(), 3);
        assert_eq!(check_unwritable(&file("src/a.rs", "// No impl Reject here.")).len(), 0);
    }

    #[test]
    fn a_machines_path_is_found_in_any_file() {
        for folder in PRIVATE_FOLDERS {
            for text in [format!("fine\nsee /{folder}/somebody"), format!("A=/{folder}/a"), format!("`/{folder}/.b`")] {
                assert_eq!(check_unsayable(&file("notes.md", &text)).len(), 1, "{text}");
            }
            for text in [format!("see the {folder}/a"), format!("x/{folder}/a"), format!("$X/{folder}/a")] {
                assert_eq!(check_unsayable(&file("notes.md", &text)).len(), 0, "{text}");
            }
        }
        let scratch = format!("/{}/a-test", "tmp");
        assert_eq!(check_unsayable(&file("tests/a.rs", &scratch)).len(), 0);
        assert_eq!(check_unsayable(&file("src/a.rs", &scratch)).len(), 1);
    }

    #[test]
    fn a_host_of_packages_is_found_in_any_file() {
        for host in ["registry.example.com", "npm-proxy.example.com:8080", "u:p@mirror.test", "PyPI.example.org"] {
            assert_eq!(check_unsayable(&file("notes.md", &format!("from https://{host}/a"))).len(), 1, "{host}");
        }
        for text in ["https://example.com/registry", "self.registry.gather()", "a proxy // registry of things"] {
            assert_eq!(check_unsayable(&file("notes.md", text)).len(), 0, "{text}");
        }
    }

    #[test]
    fn a_version_before_its_release_is_found() {
        let cargo = "[dependencies]\na = \"1.0.0-rc.1\"\nb = { version = \"=2.0-alpha\", features = [\"c-rc\"] }\n";
        assert_eq!(check_versions(cargo).len(), 2);
        assert_eq!(check_versions("a = { version = \"^1.2\", features = [\"x-beta\"] }\n# b = \"1-beta\"").len(), 0);
    }

    #[test]
    fn an_unused_dependency_is_found() {
        let cargo = "[dependencies]\nserde-json = \"1\"\nuuid = \"1\"\n\n[dev-dependencies]\nproptest = \"1\"\n";
        let files = file("src/a.rs", "use serde_json::Value; // uuid::Uuid");
        assert_eq!(
            check_dependencies(cargo, "dependencies", &files),
            ["Cargo.toml:3: nothing uses `uuid` of [dependencies]"]
        );
    }

    #[test]
    fn a_short_test_name_is_found() {
        let text =
            "#[test]\nfn it_works() {}\n#[tokio::test(start_paused = true)]\nasync fn a_name_that_says_something() {}";
        assert_eq!(
            check_test_names(&file("tests/a.rs", text)),
            ["tests/a.rs:2: the test `it_works` is not named by a sentence"]
        );
    }

    #[test]
    fn a_threat_without_a_test_that_exists_is_found() {
        let tests = file("tests/a.rs", "#[test]\nfn it_is_stopped_at_once() {}");
        let security = |row: &str| {
            format!("# x\n| a | b | `c` |\n## Threats\n| threat | what | by |\n|---|---|---|\n{row}\n## y\n")
        };
        let complaints = |row: &str| check_threats(&security(row), &tests, |path| path == "tests/run");
        assert_eq!(complaints("| flood | a limit | `it_is_stopped_at_once` `tests/run` |"), [""; 0]);
        for row in ["| flood | a limit | |", "| flood | `a limit` | hope |", "| flood | a limit |"] {
            assert_eq!(complaints(row)[0], "SECURITY.md: no test shows what stops `flood`", "{row}");
        }
        assert_eq!(
            complaints("| flood | a limit | `it_is_gone` |"),
            ["SECURITY.md: `it_is_gone` against `flood` does not exist"]
        );
        assert_eq!(check_threats("", &tests, |_| true), ["SECURITY.md: there is no chapter `Threats`"]);
    }

    #[test]
    fn comments_and_strings_are_blanked_and_nothing_else() {
        let text = "a /* b /* c */ d */ \"e\\\"f\" 'g' '\\'' '\u{e9}' r#\"h\"i\"# b\"j\" 'k: r#type // l\nm";
        let code = code_of(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "b", "'k:", "r#type", "m"]);
    }
}
