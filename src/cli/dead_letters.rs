//! `taskcast dead-letters`: lists what could not be read as an event, appends it again, or discards it.

use std::{fmt::Write as _, sync::Arc};

use serde_json::{Value, json};

use super::{Failure, arguments, complain, print};
use crate::{
    config,
    input::Publisher,
    log::{Backend, DeadLetter, Log},
    metrics::Metrics,
    proto::{Event, Position, rfc3339},
};

/// Events appended, and their letters removed, together: so many are in the log twice if the command is killed between.
const BATCH_LETTERS_MAX: usize = 256;
/// Characters of a payload that `list` shows.
const PREVIEW_CHARACTERS: usize = 200;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Show the newest dead letters, oldest first.
    List(List),
    /// Append to the log what can be read now, and remove it from the dead letters.
    Replay(Chosen),
    /// Remove dead letters for good.
    Discard(Chosen),
}

#[derive(clap::Args, Debug)]
struct List {
    #[command(flatten)]
    common: arguments::Common,
    /// How many at most.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// One JSON object a line, with the whole payload.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["position", "all"])))]
struct Chosen {
    #[command(flatten)]
    common: arguments::Common,
    /// The position in the log, as `list` shows it; may be repeated.
    #[arg(long, value_name = "POSITION", value_parser = position)]
    position: Vec<Position>,
    /// Every dead letter.
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(arguments: &Arguments) -> Result<u8, Failure> {
    match &arguments.command {
        Command::List(list) => {
            let log = open(&list.common)?;
            let letters = log.dead_letters(list.limit).await?;
            if letters.is_empty() {
                complain("there are no dead letters\n");
            }
            let lines = letters.iter().map(if list.json { json_line } else { text_line });
            print(&lines.collect::<String>());
            Ok(0)
        }
        Command::Replay(chosen) => replay(&open(&chosen.common)?, chosen).await,
        Command::Discard(chosen) => {
            let log = open(&chosen.common)?;
            let (letters, missing) = choose(&log, chosen).await?;
            for batch in letters.chunks(BATCH_LETTERS_MAX) {
                log.remove_dead_letters(batch).await?;
                tell(batch, "discarded");
            }
            Ok(u8::from(missing))
        }
    }
}

fn open(common: &arguments::Common) -> Result<Log, Failure> {
    let settings = config::load_log(&arguments::sources(common))?;
    let kind = match settings.backend {
        Backend::Memory => {
            let text = "the log in memory lives within a running service and has no dead letters: only what was read as \
                        an event comes into it; name another log with --log redis://… or --log amqp://…";
            return Err(Failure::Other(text.to_owned()));
        }
        Backend::Redis { .. } => "redis",
        Backend::Amqp { .. } => "amqp",
    };
    let log = Log::open(settings, Arc::new(Metrics::new(kind)))?;
    if !log.keeps_dead_letters() {
        complain("warning: log.dead_letters_max is 0: the service sets nothing aside\n");
    }
    Ok(log)
}

/// The letters that were asked for, and whether some were not found, which is told.
async fn choose(log: &Log, chosen: &Chosen) -> Result<(Vec<DeadLetter>, bool), Failure> {
    let mut letters = log.dead_letters(usize::MAX).await?;
    if chosen.all {
        if letters.is_empty() {
            complain("there are no dead letters\n");
        }
        return Ok((letters, false));
    }
    letters.retain(|letter| chosen.position.contains(&letter.position));
    let missing = chosen.position.iter().filter(|position| letters.iter().all(|letter| letter.position != **position));
    let missing = missing.map(|position| complain(&format!("{position} is no dead letter\n"))).count();
    Ok((letters, missing > 0))
}

async fn replay(log: &Log, chosen: &Chosen) -> Result<u8, Failure> {
    let (letters, mut failed) = choose(log, chosen).await?;
    let publisher = Publisher::new(log.clone());
    for batch in letters.chunks(BATCH_LETTERS_MAX) {
        let mut replayed = Vec::with_capacity(batch.len());
        let mut events = Vec::with_capacity(batch.len());
        for letter in batch {
            match decode(letter) {
                Ok(event) => {
                    events.push(event);
                    replayed.push(letter.clone());
                }
                Err(why) => {
                    failed = true;
                    complain(&format!("{} stays: {}\n", letter.position, escaped(&why)));
                }
            }
        }
        // What is in the log is removed even if the rest did not come so far.
        let outcome = publisher.publish(&events).await;
        replayed.truncate(outcome.as_ref().map_or_else(|error| error.appended, Vec::len));
        if !replayed.is_empty() {
            log.remove_dead_letters(&replayed).await.map_err(|why| {
                let positions: Vec<String> = replayed.iter().map(|letter| letter.position.to_string()).collect();
                format!(
                    "{} are in the log again, but were not removed from the dead letters: {why}",
                    positions.join(", ")
                )
            })?;
        }
        tell(&replayed, "replayed");
        outcome.map_err(|error| error.to_string())?;
    }
    Ok(u8::from(failed))
}

fn tell(letters: &[DeadLetter], what: &str) {
    print(&letters.iter().fold(String::new(), |out, letter| out + &format!("{} {what}\n", letter.position)));
}

/// As this version reads it, and as the log's readers will read it again.
fn decode(letter: &DeadLetter) -> Result<Event, String> {
    if letter.is_truncated() {
        let (bytes, kept) = (letter.payload_bytes, letter.payload.len());
        return Err(format!("it had {bytes} bytes, of which {kept} were kept"));
    }
    let event = Event::decode(letter.content_type, &letter.payload).map_err(|malformed| malformed.to_string())?;
    event.fits_the_log().map_err(|malformed| malformed.to_string())?;
    Ok(event)
}

fn position(text: &str) -> Result<Position, String> {
    text.parse().map_err(|_| "a position such as 1700000000000-0".to_owned())
}

fn text_line(letter: &DeadLetter) -> String {
    let mut line = format!("{} ", letter.position);
    if let Some(ms) = letter.appended_at_ms {
        let _ = write!(line, " {} ", rfc3339(ms));
    }
    let field = letter.field.as_deref().map(|field| format!("{field}: ")).unwrap_or_default();
    let _ = write!(line, " {}  ", escaped(&format!("{}  {field}{}", letter.reason, letter.detail)));
    let text = String::from_utf8_lossy(&letter.payload);
    let shown: String = text.chars().take(PREVIEW_CHARACTERS).collect();
    line.push_str(&escaped(&shown));
    if letter.is_truncated() || shown.len() < text.len() {
        let _ = write!(line, "… ({} bytes)", letter.payload_bytes);
    }
    line.push('\n');
    line
}

fn json_line(letter: &DeadLetter) -> String {
    let mut object = json!({
        "position": letter.position.to_string(),
        "appended_at": letter.appended_at_ms.map(rfc3339),
        "content_type": letter.content_type.as_str(),
        "reason": letter.reason,
        "field": letter.field,
        "detail": letter.detail,
        "payload_bytes": letter.payload_bytes,
        "truncated": letter.is_truncated(),
    });
    let (name, payload) = match str::from_utf8(&letter.payload) {
        Ok(text) => ("payload", Value::from(text)),
        Err(_) => ("payload_hex", Value::from(hex(&letter.payload))),
    };
    object[name] = payload;
    format!("{}\n", plain(&object.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Payloads come from strangers, and what a terminal takes for a command must not reach it.
fn escaped(text: &str) -> String {
    let quotes = |c: char| matches!(c, '"' | '\'');
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if quotes(c) {
            out.push(c);
        } else {
            out.extend(c.escape_debug());
        }
        out
    })
}

/// The same JSON in ASCII: beyond it are characters that a terminal takes for commands, or shows backwards. They stand
/// only within strings.
fn plain(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut out, c| {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(out, "\\u{unit:04x}");
            });
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{log::Record, proto::ContentType};

    fn letter(payload: &[u8]) -> DeadLetter {
        let record = Record {
            position: Position { major: 1_700_000_000_000, minor: 2 },
            appended_at_ms: Some(1_700_000_000_000),
            content_type: ContentType::Json,
            payload: Bytes::copy_from_slice(payload),
            trace: None,
        };
        DeadLetter::new(&record, &Event::decode(ContentType::Json, payload).unwrap_err())
    }

    /// Clears a screen, in both of the ways, ends a line, and turns what follows around.
    const HOSTILE: &[u8] = "{\"task_id\":\"\u{1b}[2J\u{9b}2J\r\n\u{7f}\u{202e}é🎉\"".as_bytes();

    #[test]
    fn no_control_character_reaches_the_terminal() {
        let mut hostile = letter(HOSTILE);
        hostile.reason = "\u{1b}]0;x\u{7}".to_owned();
        hostile.field = Some("\u{9b}2J".to_owned());
        let (text, json) = (text_line(&hostile), json_line(&hostile));
        for line in [&text, &json] {
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(line.trim_end_matches('\n').chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line:?}");
        }
        assert!(text.contains(r#"{"task_id":"\u{1b}[2J\u{9b}2J\r\n\u{7f}\u{202e}é🎉""#), "{text}");
    }

    #[test]
    fn json_gives_the_very_payload() {
        let value: Value = serde_json::from_str(&json_line(&letter(HOSTILE))).unwrap();
        assert_eq!(value["payload"].as_str().unwrap().as_bytes(), HOSTILE);
        assert_eq!(value["position"], "1700000000000-2");
        assert_eq!(value["appended_at"], "2023-11-14T22:13:20.000Z");
        let value: Value = serde_json::from_str(&json_line(&letter(b"\xff\x00"))).unwrap();
        assert_eq!((&value["payload"], &value["payload_hex"]), (&Value::Null, &json!("ff00")));
    }

    #[test]
    fn a_preview_is_short_and_says_how_long_the_payload_was() {
        let line = text_line(&letter(&vec![b'x'; 70_000]));
        assert!(line.len() < 500 && line.ends_with("x… (70000 bytes)\n"), "{line}");
        assert!(decode(&letter(&vec![b'x'; 70_000])).unwrap_err().contains("65536 were kept"));
    }
}
