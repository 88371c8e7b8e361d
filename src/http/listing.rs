//! `GET /api/v1/tasks`: the tasks that the caller may watch, filtered, newest first, in pages.
//!
//! Refuses to know: how the hub indexes them.

use std::{str::FromStr, sync::Arc};

use bytes::Bytes;
use warp::{http::StatusCode, reply::Response};

use super::{
    Context,
    head::Head,
    problem::{HttpError, respond},
    refusal, rest,
};
use crate::{
    auth::Identity,
    hub::Newest,
    limits::{Place, Refusal},
    proto::{Cursor, Encoding, Status, Task, TaskFrame, TaskId, Topic, payload},
};

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 500;

/// A list costs a look at each of the caller's tasks, so it counts for as many requests as for one task.
pub const LISTING_WEIGHT: u32 = 10;

/// A page is cut when it has so many bytes, though never before its first task: what is put together for a request, and held
/// for who reads it slowly, is this and not five hundred results.
const PAGE_MAX_BYTES: usize = if cfg!(test) { 2048 } else { 1 << 20 };

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    status: StatusFilter,
    root: Option<TaskId>,
    tag: Option<Arc<str>>,
    limit: usize,
    /// Counts from 1.
    page: usize,
    /// Only what changed before this: where the page before ended.
    before: Option<Cursor>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusFilter {
    Any,
    Active,
    Ended,
    Is(Status),
}

/// Answers one request.
///
/// # Errors
/// 401, or 403, for somebody who is not known; 400 for an option with an impossible value; 429 for who asks too often, or
/// leaves too many unread; 503 while memory is short.
pub(super) async fn tasks(context: &Context, head: &Head) -> Result<Response, HttpError> {
    let identity = &rest::identify_within_limits(context, head, LISTING_WEIGHT).await?;
    // A slow reader of a long answer is what memory may be short of.
    if *context.overloaded.borrow() {
        return Err(HttpError::overloaded());
    }
    let filter = Filter::of(head)?;
    let places = Places::take(context, head, identity).map_err(refusal::of)?;
    let wanted = |frame: &TaskFrame| filter.admits(frame) && identity.may_watch(&frame.task);
    let newest = context.hub.newest(&filter.topics(identity), filter.skipped(), filter.limit, wanted);
    let body = filter.render(&newest, |frame| payload(&frame.bytes(Encoding::Json)));
    Ok(respond(StatusCode::OK, "application/json", held(body, places)))
}

/// The reader's places among lists that are not read yet: by address, and by user.
pub(super) struct Places {
    _by_address: Option<Place>,
    _by_user: Option<Place>,
}

impl Places {
    pub(super) fn take(context: &Context, head: &Head, identity: &Identity) -> Result<Self, Refusal> {
        let limits = &context.limits;
        let by_address = head.client.map_or(Ok(None), |client| limits.list_for(&client.caller))?;
        let by_user = match &identity.user {
            // Where everybody is the same user nobody is one.
            _ if !context.verifier.needs_token() => None,
            Some(user) => limits.list_by(user)?,
            None => limits.list_by(&identity.link())?,
        };
        Ok(Self { _by_address: by_address, _by_user: by_user })
    }
}

/// A page that has not been written yet. Its bytes own its places: hyper is done with a response's body long before it is
/// done with the bytes.
struct Held {
    body: Vec<u8>,
    _places: Places,
}

/// The bytes of an answer that owns its reader's places.
pub(super) fn held(body: Vec<u8>, places: Places) -> Bytes {
    Bytes::from_owner(Held { body, _places: places })
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Filter {
    fn of(head: &Head) -> Result<Self, HttpError> {
        let status = match head.option("status").as_deref() {
            None => StatusFilter::Any,
            Some("active") => StatusFilter::Active,
            Some("ended") => StatusFilter::Ended,
            Some(name) => StatusFilter::Is(Status::parse(name).ok_or_else(|| {
                HttpError::bad_option("status", "`status` is `active`, `ended` or the name of a status.")
            })?),
        };
        let root = head.option("root").map(|id| TaskId::parse(&id)).transpose();
        Ok(Self {
            status,
            root: root.map_err(|error| HttpError::bad_option("root", format!("`root` {error}.")))?,
            tag: head.option("tag").map(|tag| Arc::from(&*tag)),
            limit: number(head, "limit", LIMIT_DEFAULT, LIMIT_MAX)?,
            page: number(head, "page", 1, usize::MAX)?,
            before: before(head)?,
        })
    }

    /// A small set of topics that holds everything asked for which the caller may watch.
    fn topics(&self, identity: &Identity) -> Vec<Topic> {
        let root = self.root.clone().map(Topic::Root);
        let mut asked: Vec<Topic> = root.into_iter().chain(self.tag.clone().map(Topic::Tag)).collect();
        if asked.is_empty() {
            asked.push(Topic::All);
        }
        let whole = asked.iter().find(|topic| identity.sources(std::slice::from_ref(topic)).is_none());
        whole.map(|topic| vec![topic.clone()]).or_else(|| identity.sources(&asked)).unwrap_or_default()
    }

    fn admits(&self, frame: &TaskFrame) -> bool {
        self.before.is_none_or(|cursor| frame.position() < cursor.position) && self.is_about(&frame.task)
    }

    fn is_about(&self, task: &Task) -> bool {
        let status = match self.status {
            StatusFilter::Any => true,
            StatusFilter::Active => !task.status.is_terminal(),
            StatusFilter::Ended => task.status.is_terminal(),
            StatusFilter::Is(status) => task.status == status,
        };
        status
            && self.root.as_ref().is_none_or(|root| task.task_id == *root || task.group() == root)
            && self.tag.as_ref().is_none_or(|tag| task.tags.as_ref().is_some_and(|tags| tags.contains(tag)))
    }

    /// What the pages before hold.
    fn skipped(&self) -> usize {
        (self.page - 1).saturating_mul(self.limit)
    }

    /// The page's JSON, put together from tasks that are JSON already.
    fn render<B: AsRef<[u8]>>(&self, newest: &Newest, json: impl Fn(&TaskFrame) -> B) -> Vec<u8> {
        let Self { limit, page, .. } = *self;
        let mut body = br#"{"tasks":["#.to_vec();
        let mut shown = 0;
        for frame in &newest.frames {
            let json = json(frame);
            let json = json.as_ref();
            if shown > 0 {
                if body.len() + json.len() > PAGE_MAX_BYTES {
                    break;
                }
                body.push(b',');
            }
            body.extend_from_slice(json);
            shown += 1;
        }
        let total = newest.total;
        let is_last = self.skipped().saturating_add(shown) >= total;
        let last = newest.frames[..shown].last().filter(|_| !is_last);
        let next = last.map_or_else(|| "null".to_owned(), |frame| format!("\"{}\"", frame.cursor));
        let rest = format!(r#"],"page":{page},"limit":{limit},"total":{total},"next":{next}}}"#);
        body.extend_from_slice(rest.as_bytes());
        body
    }
}

fn before(head: &Head) -> Result<Option<Cursor>, HttpError> {
    let cursor = head.option("before").map(|text| text.parse()).transpose();
    cursor.map_err(|_| HttpError::bad_option("before", "`before` is what `next` of the page before says."))
}

fn number(head: &Head, name: &'static str, default: usize, max: usize) -> Result<usize, HttpError> {
    let Some(text) = head.option(name) else { return Ok(default) };
    let number = usize::from_str(&text).ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| {
        let range = if max == usize::MAX { "from 1".to_owned() } else { format!("from 1 to {max}") };
        HttpError::bad_option(name, format!("`{name}` is a whole number {range}."))
    })
}

#[cfg(test)]
#[path = "listing_tests.rs"]
pub(super) mod tests;
