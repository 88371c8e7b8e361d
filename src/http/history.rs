//! `GET /api/v1/tasks/{id}/frames`: how a task came to where it is, as far as this replica still holds it.
//!
//! Refuses to know: which frames are kept, and for how long.

use warp::{http::StatusCode, reply::Response};

use super::{
    Context,
    head::Head,
    listing::{self, LISTING_WEIGHT, Places},
    problem::{HttpError, respond},
    refusal, rest,
    upgrade::task_id,
};
use crate::{
    hub::History,
    proto::{Encoding, TaskFrame, payload},
};

/// The oldest frames are left out where all of them would be more, though never the newest: as a page of a list.
const BODY_MAX_BYTES: usize = if cfg!(test) { 2048 } else { 1 << 20 };

/// Answers one request. It counts, and is held, as a list is: its bytes are copied as well.
///
/// # Errors
/// As for a list of tasks; 400 for an identifier that is none; 404, the same for a task that does not exist and for one that
/// the caller may not see.
pub(super) async fn frames(context: &Context, head: &Head, segment: &str) -> Result<Response, HttpError> {
    let identity = &rest::identify_within_limits(context, head, LISTING_WEIGHT).await?;
    let task_id = task_id(segment)?;
    if *context.overloaded.borrow() {
        return Err(HttpError::overloaded());
    }
    let places = Places::take(context, head, identity).map_err(refusal::of)?;
    let sees = |frame: &TaskFrame| identity.may_watch(&frame.task);
    let history = context.hub.history(&task_id).and_then(|history| seen(history, sees));
    let history = history.ok_or_else(HttpError::not_found)?;
    let body = render(&history, |frame| payload(&frame.bytes(Encoding::Json)));
    Ok(respond(StatusCode::OK, "application/json", listing::held(body, places)))
}

/// What may be seen of it: nothing, when that is true of how it stands; and no frame of a time when it was another's.
fn seen(mut history: History, sees: impl Fn(&TaskFrame) -> bool) -> Option<History> {
    history.frames.last().filter(|newest| sees(newest))?;
    history.from_start &= history.frames.first().is_some_and(|first| sees(first));
    history.frames.retain(|frame| sees(frame));
    Some(history)
}

/// The answer's JSON, put together from frames that are JSON already.
fn render<B: AsRef<[u8]>>(history: &History, json: impl Fn(&TaskFrame) -> B) -> Vec<u8> {
    let History { frames, from_start, frames_max } = history;
    let mut bytes = 0;
    let mut shown: Vec<B> = Vec::with_capacity(frames.len());
    for frame in frames.iter().rev() {
        let json = json(frame);
        bytes += json.as_ref().len() + 1;
        if !shown.is_empty() && bytes > BODY_MAX_BYTES {
            break;
        }
        shown.push(json);
    }
    let from_start = *from_start && shown.len() == frames.len();
    let mut body = br#"{"frames":["#.to_vec();
    for (index, json) in shown.iter().rev().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(json.as_ref());
    }
    body.extend_from_slice(format!(r#"],"from_start":{from_start},"frames_max":{frames_max}}}"#).as_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::{super::listing::tests::at, *};

    fn history(places: std::ops::Range<u64>) -> History {
        History { frames: places.map(|place| at(place, "t")).collect(), from_start: true, frames_max: 16 }
    }

    fn rendered(history: &History, padded: usize) -> String {
        let json = |frame: &TaskFrame| format!("{:>padded$}", frame.position().major);
        String::from_utf8(render(history, json)).unwrap()
    }

    #[test]
    fn frames_are_told_in_the_order_of_the_log() {
        assert_eq!(rendered(&history(3..6), 0), r#"{"frames":[3,4,5],"from_start":true,"frames_max":16}"#);
    }

    #[test]
    fn what_would_be_too_much_loses_its_oldest_and_says_so() {
        let text = rendered(&history(1..10), 500);
        let numbers: Vec<u64> = serde_json::from_str::<serde_json::Value>(&text).unwrap()["frames"]
            .as_array()
            .unwrap()
            .iter()
            .map(|number| number.as_u64().unwrap())
            .collect();
        assert_eq!(numbers, [6, 7, 8, 9]);
        assert!(text.contains("\"from_start\":false") && text.len() < BODY_MAX_BYTES + 100, "{text}");
        let text = rendered(&history(1..3), 5_000);
        assert!(text.len() > 5_000 && text.contains("\"from_start\":false"), "the newest is always told");
    }

    #[test]
    fn of_a_task_that_was_anothers_only_what_came_since_is_seen() {
        let later = |frame: &TaskFrame| frame.position().major > 1;
        let seen_of = seen(history(1..4), later).unwrap();
        assert_eq!(seen_of.frames.len(), 2);
        assert!(!seen_of.from_start);
        assert!(seen(history(1..4), |frame| frame.position().major < 3).is_none(), "it is another's by now");
        assert!(seen(history(1..4), |_| true).unwrap().from_start);
    }
}
