//! The list of tasks: what a query means, and what a page holds.

use super::{super::head::tests::head, *};
use crate::{
    auth::Rights,
    proto::{Position, UserId},
};

fn frame(id: &str, status: Status, tags: &[&str]) -> Arc<TaskFrame> {
    let task = Task {
        task_id: TaskId::parse(id).unwrap(),
        user_id: None,
        name: None,
        title: None,
        status,
        progress: None,
        current: None,
        total: None,
        unit: None,
        step: None,
        message: None,
        attempt: 1,
        parent_id: None,
        root_id: None,
        weight: None,
        tags: Some(tags.iter().map(|&tag| Arc::from(tag)).collect()),
        result: None,
        error: None,
        metadata: None,
        worker: None,
        heartbeat_timeout_ms: None,
        created_at_ms: 0,
        started_at_ms: None,
        updated_at_ms: 0,
        completed_at_ms: None,
    };
    Arc::new(TaskFrame::new(task, Cursor { position: Position::START, proof: 0 }, true, 0))
}

/// At this place of the log.
pub(in super::super) fn at(place: u64, id: &str) -> Arc<TaskFrame> {
    let position = Position { major: place, minor: 0 };
    let task = frame(id, Status::Running, &[]).task.clone();
    Arc::new(TaskFrame::new(task, Cursor { position, proof: 0 }, true, 0))
}

/// Each task is its name in quotes, or as long as `padded` says.
fn page(query: &str, frames: &[Arc<TaskFrame>]) -> String {
    padded_page(query, frames, 0)
}

fn padded_page(query: &str, frames: &[Arc<TaskFrame>], padded: usize) -> String {
    let filter = Filter::of(&head(query, &[])).unwrap();
    let admitted: Vec<_> = frames.iter().filter(|frame| filter.admits(frame)).cloned().collect();
    let total = admitted.len();
    let newest = Newest { frames: admitted.into_iter().skip(filter.skipped()).take(filter.limit).collect(), total };
    let json = |frame: &TaskFrame| format!("{:>padded$}", format!("{:?}", frame.task.task_id.as_str()));
    String::from_utf8(filter.render(&newest, json)).unwrap()
}

#[test]
fn pages_follow_one_another_and_end() {
    let frames: Vec<_> = ["a", "b", "c"].iter().map(|id| frame(id, Status::Running, &[])).collect();
    assert_eq!(page("", &frames), r#"{"tasks":["a","b","c"],"page":1,"limit":50,"total":3,"next":null}"#);
    let next = r#""1.0.0.00000000""#;
    assert_eq!(
        page("limit=2", &frames),
        format!(r#"{{"tasks":["a","b"],"page":1,"limit":2,"total":3,"next":{next}}}"#)
    );
    assert_eq!(page("limit=2&page=2", &frames), r#"{"tasks":["c"],"page":2,"limit":2,"total":3,"next":null}"#);
    let beyond = format!("limit=500&page={}", usize::MAX);
    assert!(page(&beyond, &frames).starts_with(r#"{"tasks":[],"#));
}

/// Follows `next` to the end; the names on each page, and its bytes.
fn followed(query: &str, frames: &[Arc<TaskFrame>], padded: usize) -> Vec<(Vec<String>, usize)> {
    let (mut pages, mut before) = (Vec::new(), String::new());
    loop {
        let text = padded_page(&format!("{query}{before}"), frames, padded);
        let body: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names = body["tasks"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        pages.push((names.collect(), text.len()));
        assert!(pages.len() < 100, "it never ends");
        let Some(next) = body["next"].as_str() else { return pages };
        before = format!("&before={next}");
    }
}

#[test]
fn a_page_of_large_tasks_is_cut_and_the_next_one_goes_on_where_it_ended() {
    let names: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    let frames: Vec<_> = names.iter().enumerate().map(|(n, name)| at(100 - n as u64, name)).collect();
    for (padded, count_min, count_max) in
        [(0, 1, 1), (300, 3, 4), (PAGE_MAX_BYTES / 2, 10, 20), (3 * PAGE_MAX_BYTES, 20, 20)]
    {
        let pages = followed("limit=500", &frames, padded);
        assert!((count_min..=count_max).contains(&pages.len()), "{} pages of tasks of {padded} bytes", pages.len());
        for (shown, bytes) in &pages {
            assert!(*bytes <= PAGE_MAX_BYTES.max(padded) + 200 && !shown.is_empty(), "{bytes} bytes");
        }
        let shown: Vec<String> = pages.into_iter().flat_map(|(shown, _)| shown).collect();
        assert_eq!(shown, names, "each once, in order");
    }
    assert_eq!(followed("limit=7", &frames, 0).len(), 3);
    // A cut page and page numbers go together: `next` follows what was shown.
    let cut = padded_page("limit=10&page=2", &frames, 600);
    let body: serde_json::Value = serde_json::from_str(&cut).unwrap();
    assert_eq!((body["tasks"][0].as_str(), body["tasks"].as_array().unwrap().len()), (Some("t10"), 3));
    let rest = padded_page(&format!("before={}", body["next"].as_str().unwrap()), &frames, 0);
    assert!(rest.starts_with(r#"{"tasks":["t13","#), "{rest}");
}

#[test]
fn status_and_tag_filter_together() {
    let frames = [
        frame("live", Status::Running, &["nightly"]),
        frame("done", Status::Succeeded, &["nightly", "big"]),
        frame("lost", Status::Lost, &[]),
    ];
    let ids = |query| {
        let body: serde_json::Value = serde_json::from_str(&page(query, &frames)).unwrap();
        body["tasks"].to_string()
    };
    assert_eq!(ids("status=active"), r#"["live"]"#);
    assert_eq!(ids("status=ended"), r#"["done","lost"]"#);
    assert_eq!(ids("status=ended&tag=nightly"), r#"["done"]"#);
    assert_eq!(ids("tag=night"), "[]");
    assert_eq!(ids("root=done"), r#"["done"]"#);
    assert_eq!(ids("root=other"), "[]");
}

#[test]
fn impossible_values_are_refused_by_name() {
    for query in ["limit=0", "limit=501", "limit=x", "page=0", "page=-1", "root=a%00", "before=yesterday"] {
        let error = Filter::of(&head(query, &[])).unwrap_err();
        let name = query.split('=').next().unwrap();
        assert_eq!(error.status(), 400);
        assert!(format!("{error:?}").contains(&format!("`{name}`")), "{query} {error:?}");
    }
}

#[test]
fn a_list_is_looked_for_where_the_token_reaches() {
    let id = |text: &str| TaskId::parse(text).unwrap();
    let user = UserId::parse("u1").unwrap();
    let rights = Rights {
        own: true,
        tasks: [id("t")].into(),
        roots: [id("r")].into(),
        tags: ["nightly".to_owned()].into(),
        ..Rights::default()
    };
    let identity = Identity { user: Some(user.clone()), rights, ..Identity::default() };
    let topics = |query, identity: &Identity| Filter::of(&head(query, &[])).unwrap().topics(identity);
    let own = [Topic::Owner(user), Topic::Task(id("t")), Topic::Root(id("r")), Topic::Tag("nightly".into())];
    assert_eq!(topics("", &identity), own);
    assert_eq!(topics("root=r&tag=y", &identity), [Topic::Root(id("r"))]);
    assert_eq!(topics("root=x&tag=nightly", &identity), [Topic::Tag("nightly".into())]);
    for foreign in ["root=x", "tag=y", "root=x&tag=y"] {
        assert_eq!(topics(foreign, &identity), own, "how much there is of it is not for this caller to feel");
    }
    let everything = Identity { rights: Rights { all: true, ..identity.rights.clone() }, ..identity };
    assert_eq!(topics("", &everything), [Topic::All]);
    assert_eq!(topics("root=x", &everything), [Topic::Root(id("x"))]);
    assert_eq!(topics("tag=y", &everything), [Topic::Tag("y".into())]);
}
