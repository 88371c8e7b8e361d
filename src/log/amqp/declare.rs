//! Making what the log needs in the broker, and saying plainly when what is there does not fit. Owns the names' shapes:
//! the exchange, the stream queue with its retention, the binding between them.
//!
//! A queue that exists with other arguments is refused by the broker with words that name one of them. Those words are
//! followed until the broker agrees, which proves that the queue is a stream (another retention than configured is
//! its owner's choice), or until they name the type. Consuming to find out would steal a classic queue's messages.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use lapin::{
    Channel, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{AmqpLog, link::Link};
use crate::log::{Settings, health::Trouble};

/// Of a queue, by their names.
pub(super) type Arguments = BTreeMap<ShortString, AMQPValue>;

/// Every key of every worker: `task.<task_id>`, whose ids may hold dots.
const BINDING: &str = "task.#";
/// A queue has fewer arguments than this.
const ATTEMPTS_MAX: usize = 16;
/// Retention drops whole segments, so a log should have about ten of them; the broker's default is the most.
const SEGMENTS: u64 = 10;
const SEGMENT_BYTES_MIN: u64 = 1_000_000;
const SEGMENT_BYTES_MAX: u64 = 500_000_000;

pub(super) async fn declare(log: &AmqpLog, link: &Link) -> Result<(), Trouble> {
    let channel = link.channel().await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared =
        channel.exchange_declare(log.exchange.clone(), ExchangeKind::Topic, options, FieldTable::default()).await;
    if let Err(error) = declared {
        let Some(words) = precondition_failed(&error) else { return Err(link.trouble(&error)) };
        let (exchange, address) = (&log.exchange, &link.address);
        return Err(Trouble::Misfit(format!(
            "exchange {exchange} at {address} is not a durable topic exchange; delete it or choose another name: \
             {words}"
        )));
    }
    let channel = declare_queue(log, &log.queue, log_arguments(&log.settings), link).await?;
    let bound = channel
        .queue_bind(
            log.queue.clone(),
            log.exchange.clone(),
            BINDING.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await;
    bound.map_err(|error| link.trouble(&error))?;
    // A channel that fails to close is gone with its connection.
    let _ = channel.close(200, "".into()).await;
    Ok(())
}

pub(super) async fn declare_queue(
    log: &AmqpLog,
    queue: &ShortString,
    mut arguments: Arguments,
    link: &Link,
) -> Result<Channel, Trouble> {
    let mut differs = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        // A refusal closes the channel.
        let channel = link.channel().await?;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let table = FieldTable::from(arguments.clone());
        let Err(error) = channel.queue_declare(queue.clone(), options, table).await else {
            tell_retention(log, queue, &differs);
            return Ok(channel);
        };
        let Some(words) = precondition_failed(&error) else { return Err(link.trouble(&error)) };
        match Difference::read(&words) {
            Some(difference) if difference.name.starts_with("x-") && difference.name != "x-queue-type" => {
                differs.push(difference.name.clone());
                difference.follow(&mut arguments);
            }
            _ => return Err(misfit(link, queue, &words)),
        }
    }
    Err(misfit(link, queue, "its arguments cannot be told"))
}

fn misfit(link: &Link, queue: &ShortString, words: &str) -> Trouble {
    let address = &link.address;
    Trouble::Misfit(format!(
        "queue {queue} at {address} is not a durable stream queue (x-queue-type: stream); delete it or choose another \
         log key: {words}"
    ))
}

fn tell_retention(log: &AmqpLog, queue: &ShortString, differs: &[String]) {
    if !differs.is_empty() && !log.retention_told.swap(true, Ordering::Relaxed) {
        let (queue, arguments) = (queue.as_str(), differs.join(", "));
        tracing::info!(queue, arguments, "the stream queue exists with other arguments than configured; they stay");
    }
}

fn log_arguments(settings: &Settings) -> Arguments {
    let mut arguments = stream_arguments(settings.max_bytes);
    let max_age = AMQPValue::LongString(format!("{}s", settings.max_age_seconds).into());
    arguments.insert("x-max-age".into(), max_age);
    arguments
}

/// Of a stream that keeps about so many bytes.
pub(super) fn stream_arguments(max_bytes: u64) -> Arguments {
    let number = |number: u64| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
    let segment = (max_bytes / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    BTreeMap::from([
        ("x-queue-type".into(), AMQPValue::LongString("stream".into())),
        ("x-max-length-bytes".into(), number(max_bytes)),
        ("x-stream-max-segment-size-bytes".into(), number(segment)),
    ])
}

fn precondition_failed(error: &lapin::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::ProtocolError(said) if said.get_id() == 406 => Some(said.get_message().to_string()),
        _ => None,
    }
}

/// What the broker says of one argument: `… inequivalent arg 'x-max-age' for queue 'q' in vhost '/': received the value
/// '60s' of type 'longstr' but current is the value '9s' of type 'longstr'`, or `… but current is none`.
#[derive(Debug, PartialEq)]
struct Difference {
    name: String,
    current: Option<AMQPValue>,
}

impl Difference {
    fn read(words: &str) -> Option<Self> {
        let (_, rest) = words.split_once("inequivalent arg '")?;
        let (name, _) = rest.split_once('\'')?;
        let current = words.rsplit_once("but current is ").map(|(_, current)| current)?;
        let current = match current.strip_prefix("the value '") {
            None => None,
            Some(value) => {
                let (value, kind) = value.rsplit_once("' of type '")?;
                Some(match kind.trim_end_matches('\'') {
                    "longstr" => AMQPValue::LongString(value.into()),
                    "bool" => AMQPValue::Boolean(value == "true"),
                    _ => AMQPValue::LongLongInt(value.parse().ok()?),
                })
            }
        };
        Some(Self { name: name.to_owned(), current })
    }

    fn follow(self, arguments: &mut Arguments) {
        let Ok(name) = ShortString::try_new(self.name) else { return };
        match self.current {
            Some(current) => arguments.insert(name, current),
            None => arguments.remove(&name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_s_words_tell_how_the_queue_differs() {
        let read = |words| Difference::read(words).unwrap();
        let other = read(
            "PRECONDITION_FAILED - inequivalent arg 'x-max-length-bytes' for queue 'q' in vhost '/': received the \
             value '20' of type 'long' but current is the value '10' of type 'signedint'",
        );
        assert_eq!(
            other,
            Difference { name: "x-max-length-bytes".to_owned(), current: Some(AMQPValue::LongLongInt(10)) }
        );
        let none = read("inequivalent arg 'x-max-age' for queue 'q' in vhost '/': received '1s' but current is none");
        assert_eq!(none.current, None);
        assert_eq!(Difference::read("PRECONDITION_FAILED - something new"), None);
    }
}
