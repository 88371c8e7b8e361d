//! `taskcast publish`: appends events to the configured log, and prints where they stand in it.

use std::{io, sync::Arc};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{
    Failure,
    arguments::{self, Common},
    complain, print,
};
use crate::{
    config,
    input::Publisher,
    log::{Backend, Log},
    metrics::Metrics,
    proto::{ContentType, Event, Malformed, Status},
};

/// Lines appended together, when as many are waiting.
const BATCH_EVENTS_MAX: usize = 256;

#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["task_id", "json"])))]
pub(super) struct Arguments {
    #[command(flatten)]
    common: arguments::Common,
    /// The task; `-` reads events from stdin, one JSON object a line.
    task_id: Option<String>,
    /// A whole event, instead of the flags below.
    #[arg(long, value_name = "EVENT", conflicts_with_all = [
        "user", "status", "progress", "current", "total", "unit", "name", "title", "step", "message", "attempt",
        "parent", "root", "tag", "error", "result",
    ])]
    json: Option<String>,
    /// The owner.
    #[arg(long)]
    user: Option<String>,
    /// queued, running, waiting, retrying, cancelling, succeeded, failed, cancelled, `timed_out` or expired.
    #[arg(long, value_parser = status)]
    status: Option<Status>,
    /// How much is done, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = arguments::finite)]
    progress: Option<f64>,
    /// How much is done, counted in --unit.
    #[arg(long, value_name = "NUMBER", value_parser = arguments::finite)]
    current: Option<f64>,
    /// How much there is to do, counted in --unit.
    #[arg(long, value_name = "NUMBER", value_parser = arguments::finite)]
    total: Option<f64>,
    /// What --current and --total count: rows, bytes.
    #[arg(long)]
    unit: Option<String>,
    /// The kind of task, for programs: `invoices.export`.
    #[arg(long)]
    name: Option<String>,
    /// What people see the task called.
    #[arg(long)]
    title: Option<String>,
    /// What is being done, for programs: upload.
    #[arg(long)]
    step: Option<String>,
    /// What is being done, for people.
    #[arg(long)]
    message: Option<String>,
    /// Which attempt this is; the first is 1.
    #[arg(long, value_name = "NUMBER")]
    attempt: Option<u32>,
    /// The task that this one is a part of.
    #[arg(long, value_name = "TASK_ID")]
    parent: Option<String>,
    /// The task at the top of the family that this one belongs to.
    #[arg(long, value_name = "TASK_ID")]
    root: Option<String>,
    /// A group that the task is in, which a token may allow to watch; may be repeated.
    #[arg(long)]
    tag: Vec<String>,
    /// Why it failed, for people.
    #[arg(long, value_name = "MESSAGE")]
    error: Option<String>,
    /// What came of it.
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    result: Option<Value>,
}

pub(super) async fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let publisher = publisher(&arguments.common, "publish with POST /api/v1/events")?;
    if arguments.task_id.as_deref() == Some("-") {
        return publish_lines(&publisher).await;
    }
    let bytes = match &arguments.json {
        Some(json) => json.clone().into_bytes(),
        None => event_of(arguments).to_string().into_bytes(),
    };
    let event = decode(&bytes).map_err(|malformed| explain(&malformed))?;
    publish(&publisher, &[event]).await?;
    Ok(0)
}

/// Appends to the log that these arguments name. The one in memory cannot be reached from here: `instead` says what can be
/// done.
pub(super) fn publisher(common: &Common, instead: &str) -> Result<Publisher, Failure> {
    let settings = config::load_log(&arguments::sources(common))?;
    let kind = match settings.backend {
        Backend::Memory => {
            return Err(Failure::Other(format!(
                "the log in memory lives within a running service: {instead}, or name another log with --log redis://… or \
                 --log amqp://…"
            )));
        }
        Backend::Redis { .. } => "redis",
        Backend::Amqp { .. } => "amqp",
    };
    Ok(Publisher::new(Log::open(settings, Arc::new(Metrics::new(kind)))?))
}

/// The event that the flags describe; what is wrong with it, decoding says.
fn event_of(arguments: &Arguments) -> Value {
    let mut event = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            event.insert(name.to_owned(), value);
        }
    };
    let text = |text: &Option<String>| text.clone().map(Value::from);
    put("task_id", text(&arguments.task_id));
    put("user_id", text(&arguments.user));
    put("status", arguments.status.map(|status| status.as_str().into()));
    put("progress", arguments.progress.map(|number| json!(number)));
    put("current", arguments.current.map(|number| json!(number)));
    put("total", arguments.total.map(|number| json!(number)));
    put("unit", text(&arguments.unit));
    put("name", text(&arguments.name));
    put("title", text(&arguments.title));
    put("step", text(&arguments.step));
    put("message", text(&arguments.message));
    put("attempt", arguments.attempt.map(Value::from));
    put("parent_id", text(&arguments.parent));
    put("root_id", text(&arguments.root));
    put("tags", (!arguments.tag.is_empty()).then(|| json!(arguments.tag)));
    put("error", arguments.error.as_ref().map(|message| json!({ "message": message })));
    put("result", arguments.result.clone());
    Value::Object(event)
}

/// Reads the name of a status. Events of other programs may bring words that are not known and are taken for running; who
/// types one here has misspelt it.
fn status(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| {
        let names = Status::ALL.into_iter().filter(|status| *status != Status::Lost).map(Status::as_str);
        format!("one of {}", names.collect::<Vec<_>>().join(", "))
    })
}

fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|why| format!("JSON ({why}); a text has quotes of its own: '\"done\"'"))
}

/// An event that the log's readers will take too.
fn decode(bytes: &[u8]) -> Result<Event, Malformed> {
    let event = Event::decode(ContentType::Json, bytes)?;
    event.may_be_published()?;
    Ok(event)
}

fn explain(malformed: &Malformed) -> String {
    let field = malformed.field.as_deref().map(|field| format!("`{field}`: ")).unwrap_or_default();
    format!("not an event: {field}{}", malformed.detail)
}

async fn publish(publisher: &Publisher, events: &[Event]) -> Result<(), Failure> {
    let positions = publisher.publish(events).await.map_err(|error| {
        format!("{} of {} events are in the log, then it failed: {}", error.appended, events.len(), error.detail)
    })?;
    for position in positions {
        print(&position.map_or("confirmed\n".to_owned(), |position| format!("{position}\n")));
    }
    Ok(())
}

/// A line of stdin and its number, counted from 1.
type Line = (u64, io::Result<String>);

/// Publishes what can be read; lines that are no events are told on stderr and make the exit code 1.
async fn publish_lines(publisher: &Publisher) -> Result<u8, Failure> {
    let mut lines = stdin_lines();
    let (mut waiting, mut refused) = (Vec::new(), false);
    // Together what is there already, at once what someone types.
    while lines.recv_many(&mut waiting, BATCH_EVENTS_MAX).await > 0 {
        let mut events = Vec::with_capacity(waiting.len());
        for (number, line) in waiting.drain(..) {
            let line = line.map_err(|error| format!("stdin, line {number}: {error}"))?;
            match decode(line.trim().as_bytes()) {
                _ if line.trim().is_empty() => {}
                Ok(event) => events.push(event),
                Err(malformed) => {
                    refused = true;
                    complain(&format!("line {number}: {}\n", explain(&malformed)));
                }
            }
        }
        if !events.is_empty() {
            publish(publisher, &events).await?;
        }
    }
    Ok(u8::from(refused))
}

/// Reads stdin on a thread of its own, no further ahead than one batch. The thread ends with stdin, or the process.
fn stdin_lines() -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(BATCH_EVENTS_MAX);
    std::thread::spawn(move || {
        for line in (1..).zip(io::stdin().lines()) {
            let failed = line.1.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
