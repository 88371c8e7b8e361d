//! What became of a batch, from what the broker said of each event in it. Owns the distinction between what is in the
//! log, what is certainly not, and what nobody knows. Refuses to know: connections.

use bytes::Bytes;
use lapin::{Confirmation, ErrorKind, types::ShortString};

use super::link::trouble;
use crate::log::Outgoing;

/// What the broker said of one event that was sent.
#[derive(Debug)]
pub(super) enum Settled {
    Stored,
    /// It could not store one.
    Refused,
    /// Stored or refused; and an event of this batch came back, since no queue takes it. Which one, its bytes tell: the
    /// library hands it out with the next confirmation, and confirmations of several events come in no order.
    Returned {
        bytes: Bytes,
        refused: bool,
    },
    /// The connection or the channel ended first.
    Failed(lapin::Error),
    /// Nothing yet.
    Unknown,
}

impl From<Option<lapin::Result<Confirmation>>> for Settled {
    fn from(settled: Option<lapin::Result<Confirmation>>) -> Self {
        match settled {
            Some(Ok(Confirmation::Ack(None))) => Self::Stored,
            Some(Ok(Confirmation::Nack(None) | Confirmation::NotRequested)) => Self::Refused,
            Some(Ok(Confirmation::Ack(Some(returned)))) => {
                Self::Returned { bytes: returned.delivery.data.into(), refused: false }
            }
            Some(Ok(Confirmation::Nack(Some(returned)))) => {
                Self::Returned { bytes: returned.delivery.data.into(), refused: true }
            }
            Some(Err(error)) => Self::Failed(error),
            None => Self::Unknown,
        }
    }
}

/// What to do about a batch.
#[derive(Debug)]
pub(super) enum Verdict {
    Appended,
    /// Nothing beyond what was confirmed is in the log, so it can be published again. In words, why.
    NotTaken(String),
    /// As before: the stream does not run yet, so asking again will do.
    NotYet(String),
    /// Some of it may be. In words, why.
    Open(String),
}

/// One event's place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stored,
    Returned,
    Unsent,
    /// The number of what was settled.
    Open(usize),
}

/// How a batch was published.
pub(super) struct Attempt<'a> {
    /// Nothing had been published on its channel before.
    pub is_first: bool,
    /// Nobody else used its connection meanwhile.
    pub is_alone: bool,
    /// Where the connection leads, for people.
    pub address: &'a str,
    pub exchange: &'a ShortString,
    /// Why those that were not sent were not.
    pub failed: Option<lapin::Error>,
}

pub(super) fn of(events: &[Outgoing], settled: &[Settled], attempt: &Attempt<'_>) -> (usize, Verdict) {
    let Attempt { address, exchange, failed, .. } = attempt;
    let fates = fates(events, settled);
    let stored = fates.iter().take_while(|fate| **fate == Fate::Stored).count();
    let rest = &fates[stored..];
    let Some(first) = rest.first() else { return (stored, Verdict::Appended) };
    let words = match first {
        Fate::Returned => {
            format!("exchange {exchange} at {address} has no queue for it: was the binding removed?")
        }
        Fate::Open(index) => match &settled[*index] {
            Settled::Failed(error) => trouble(address, error).words().to_owned(),
            _ => format!("RabbitMQ at {address} could not store it"),
        },
        Fate::Stored | Fate::Unsent => failed.as_ref().map_or_else(
            || format!("RabbitMQ at {address} did not take it"),
            |error| trouble(address, error).words().to_owned(),
        ),
    };
    let is_certain = rest.iter().all(|fate| matches!(fate, Fate::Returned | Fate::Unsent));
    let has_no_stream = attempt.is_first
        && attempt.is_alone
        && matches!(settled, [Settled::Failed(error)] if says_that_no_stream_runs(error));
    // What was confirmed after a hole is in the log too, but is not a beginning of the batch.
    let verdict = match (is_certain, has_no_stream) {
        (true, _) => Verdict::NotTaken(words),
        (false, true) => Verdict::NotYet(words),
        (false, false) => Verdict::Open(words),
    };
    (stored, verdict)
}

/// A stream that does not run yet is found out with the first event of a channel, before it is stored: the broker says
/// so in words (506), or something in it ends over it (541, as 3.10 does where its coordinator of streams is not up).
/// Both end the connection, and the library gives the error to whoever waits for anything on it. So it tells something
/// of an event only where that event was all that the connection had to do.
fn says_that_no_stream_runs(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said) if matches!(said.get_id(), 506 | 541))
}

/// How many, from the start, are in the log for certain.
pub(super) fn confirmed(events: &[Outgoing], settled: &[Settled]) -> usize {
    fates(events, settled).iter().take_while(|fate| **fate == Fate::Stored).count()
}

fn fates(events: &[Outgoing], settled: &[Settled]) -> Vec<Fate> {
    let mut returned: Vec<&Bytes> = settled
        .iter()
        .filter_map(|settled| match settled {
            Settled::Returned { bytes, .. } => Some(bytes),
            _ => None,
        })
        .collect();
    let mut fate = |(index, event): (usize, &Outgoing)| {
        let Some(settled) = settled.get(index) else { return Fate::Unsent };
        if let Some(at) = returned.iter().position(|bytes| **bytes == event.payload) {
            returned.swap_remove(at);
            return Fate::Returned;
        }
        match settled {
            Settled::Stored | Settled::Returned { refused: false, .. } => Fate::Stored,
            _ => Fate::Open(index),
        }
    };
    events.iter().enumerate().map(&mut fate).collect()
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError};

    use super::*;

    fn event(text: &'static str) -> Outgoing {
        Outgoing { task_id: "t".to_owned(), payload: Bytes::from_static(text.as_bytes()) }
    }

    fn returned(text: &'static str) -> Settled {
        Settled::Returned { bytes: Bytes::from_static(text.as_bytes()), refused: false }
    }

    #[test]
    fn a_returned_event_is_told_by_its_bytes_and_not_by_the_confirmation_it_came_with() {
        let events = [event("a"), event("b"), event("c")];
        let settled = [Settled::Stored, returned("b"), Settled::Stored];
        assert_eq!(fates(&events, &settled), [Fate::Stored, Fate::Returned, Fate::Stored]);
        // `a` came back, but the library said so with the confirmation of `c`.
        let settled = [Settled::Stored, Settled::Stored, returned("a")];
        assert_eq!(fates(&events, &settled), [Fate::Returned, Fate::Stored, Fate::Stored]);
        assert_eq!(confirmed(&events, &settled), 0);
    }

    #[test]
    fn what_was_not_sent_is_certainly_not_in_the_log_and_what_was_not_confirmed_may_be() {
        let events = [event("a"), event("b"), event("c")];
        let settled = [Settled::Stored, Settled::Unknown];
        assert_eq!(fates(&events, &settled), [Fate::Stored, Fate::Open(1), Fate::Unsent]);
        assert_eq!(confirmed(&events, &settled), 1);
    }

    #[test]
    fn the_first_of_two_equal_events_counts_as_the_one_that_came_back() {
        let events = [event("a"), event("a")];
        assert_eq!(fates(&events, &[Settled::Stored, returned("a")]), [Fate::Returned, Fate::Stored]);
    }

    const NO_STREAM: [AMQPHardError; 2] = [AMQPHardError::RESOURCEERROR, AMQPHardError::INTERNALERROR];

    fn failed(said: AMQPHardError) -> Settled {
        let said = AMQPError::new(AMQPErrorKind::Hard(said), "words of the broker".into());
        Settled::Failed(ErrorKind::ProtocolError(said).into())
    }

    /// What becomes of these two events.
    fn judged(settled: &[Settled], is_first: bool, is_alone: bool) -> (usize, Verdict) {
        let exchange = "events".into();
        let attempt = Attempt { is_first, is_alone, address: "broker:5672", exchange: &exchange, failed: None };
        of(&[event("a"), event("b")], settled, &attempt)
    }

    #[test]
    fn a_stream_that_does_not_run_is_waited_for_where_one_event_was_alone_on_its_connection() {
        for said in NO_STREAM {
            let (stored, verdict) = judged(&[failed(said)], true, true);
            assert_eq!(stored, 0);
            assert!(matches!(&verdict, Verdict::NotYet(words) if words.contains("words of the broker")), "{verdict:?}");
        }
    }

    #[test]
    fn the_same_words_leave_it_open_where_they_may_be_about_somebody_elses_event() {
        for said in NO_STREAM {
            for (is_first, is_alone) in [(false, true), (true, false), (false, false)] {
                let (_, verdict) = judged(&[failed(said.clone())], is_first, is_alone);
                assert!(matches!(verdict, Verdict::Open(_)), "{said:?} {is_first} {is_alone}: {verdict:?}");
            }
            // Either may be the one that they are about.
            let (_, verdict) = judged(&[failed(said.clone()), failed(said.clone())], true, true);
            assert!(matches!(verdict, Verdict::Open(_)), "{said:?}: {verdict:?}");
            let (stored, verdict) = judged(&[Settled::Stored, failed(said)], true, true);
            assert!(stored == 1 && matches!(verdict, Verdict::Open(_)), "{verdict:?}");
        }
        // Others do not say what became of it.
        let (_, verdict) = judged(&[failed(AMQPHardError::CONNECTIONFORCED)], true, true);
        assert!(matches!(verdict, Verdict::Open(_)), "{verdict:?}");
    }

    #[test]
    fn what_came_back_or_was_never_sent_is_not_taken_whoever_was_beside_it() {
        assert!(matches!(judged(&[returned("a")], false, false), (0, Verdict::NotTaken(_))));
        assert!(matches!(judged(&[], false, false), (0, Verdict::NotTaken(_))));
        assert!(matches!(judged(&[Settled::Stored], false, false), (1, Verdict::NotTaken(_))));
        assert!(matches!(judged(&[Settled::Stored, Settled::Stored], false, false), (2, Verdict::Appended)));
    }
}
