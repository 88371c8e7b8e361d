//! A client: what it asks for, what it shows, and everything that it must never be told.
//!
//! Refuses to know: how the service came to say it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::json;

use super::{
    connection::Connection,
    log,
    model::{Facts, Sight},
    random::Random,
    replica::{Limits, Replica},
    wire::{self, Heard},
};
use crate::{
    auth::{Identity, Rights},
    clock::Now,
    proto::{Cursor, Encoding, Position, Topic},
    session::{Deliver, Request, Scope, Sessions, websocket::Inbound},
};

/// A task as it is shown, and the position of the event that made it so.
struct Shown {
    facts: Facts,
    at: Position,
}

/// What is remembered of one connection, to judge it by.
#[derive(Default)]
struct Account {
    greeted: bool,
    resumed: bool,
    /// The next page replaces everything.
    replaces: bool,
    /// The snapshot is out, or none was due: from here on nothing may be missing.
    whole_since: Option<Position>,
    frames: BTreeSet<Position>,
    /// Subscribed to from the beginning to now.
    steady: BTreeSet<Topic>,
    unsubscribing: usize,
    /// How often the replica has begun anew before this; `None` when that cannot be told.
    restarts: Option<usize>,
}

pub(super) struct Client {
    identity: Identity,
    sight: Sight,
    request: Request,
    topics: BTreeSet<Topic>,
    /// It unsubscribed from what its address names.
    has_given_up: bool,
    shown: BTreeMap<String, Shown>,
    cursor: Option<Cursor>,
    pub(super) connection: Option<Connection>,
    account: Account,
    /// Until when a replica that is behind is waited for.
    pub(super) patience: Option<Now>,
    pub(super) resumed: u64,
    /// Its number, when it is to say what it says and hears.
    pub(super) tells: Option<usize>,
}

impl Client {
    pub(super) fn any(random: &mut Random, limits: Limits) -> Self {
        let rights = Rights::default();
        let user = Some(log::owner(random.below(3)));
        let mine = Scope::Mine { everything: false };
        let tag = || Rights { tags: ["x".to_owned()].into(), ..Rights::default() };
        let root = || Rights { roots: [log::id(0)].into(), ..Rights::default() };
        let any_task = Scope::Topic(Topic::Task(log::id(random.below(limits.tasks))));
        let (user, rights, scope) = match random.below(8) {
            0 | 1 => (user, Rights { own: true, ..rights }, mine),
            2 => (None, Rights { all: true, ..rights }, Scope::Mine { everything: true }),
            3 => (None, tag(), mine),
            4 => (None, root(), mine),
            5 => (user, Rights { own: true, ..rights }, any_task),
            6 => (user, Rights { own: true, ..tag() }, any_task),
            _ => (user, Rights { own: true, ..root() }, Scope::Topic(Topic::Root(log::id(0)))),
        };
        let sight = Sight {
            user: user.as_ref().filter(|_| rights.own).map(ToString::to_string),
            all: rights.all,
            tag: rights.tags.first().cloned(),
            root: rights.roots.first().map(ToString::to_string),
        };
        let topics = match &scope {
            Scope::Topic(topic) => topic.clone(),
            Scope::Mine { everything: true } => Topic::All,
            Scope::Mine { .. } => match (&user, rights.tags.first(), rights.roots.first()) {
                (Some(user), ..) => Topic::Owner(user.clone()),
                (_, Some(tag), _) => Topic::Tag(tag.as_str().into()),
                (.., root) => Topic::Root(root.unwrap().clone()),
            },
        };
        let request = Request {
            scope,
            token: None,
            encoding: random.pick(&[Encoding::Json, Encoding::Protobuf]),
            deliver: random.pick(&[Deliver::Latest, Deliver::Latest, Deliver::Every]),
            throttle: Duration::from_millis(random.pick(&[0, 0, 0, 700])),
            cursor: None,
            caller: None,
        };
        Self {
            identity: Identity { user, rights, ..Identity::default() },
            sight,
            request,
            topics: [topics].into(),
            has_given_up: false,
            shown: BTreeMap::new(),
            cursor: None,
            connection: None,
            account: Account::default(),
            patience: None,
            resumed: 0,
            tells: None,
        }
    }

    #[expect(clippy::print_stderr, reason = "whoever replays a seed wants to see it")]
    fn tell(&self, what: impl Fn() -> String) {
        if let Some(number) = self.tells {
            eprintln!("  client {number} {}", what());
        }
    }

    // ---- what it does ----------------------------------------------------------------------------------------------

    pub(super) fn wants(&self) -> Option<Position> {
        self.cursor.map(|cursor| cursor.position)
    }

    pub(super) fn connect(&mut self, (replica, shared): (usize, &Arc<Sessions>), now: Now) {
        // A cursor accounts for what the connection watched. Whoever gave up what the address names begins anew.
        if self.has_given_up {
            self.cursor = None;
        }
        let scope = Request { cursor: self.cursor.map(|cursor| cursor.to_string()), ..self.request.clone() };
        // Whoever reconnects has only what its address says; what it subscribed to since is gone.
        self.topics = match &scope.scope {
            Scope::Topic(topic) => [topic.clone()].into(),
            Scope::Mine { .. } if self.identity.rights.all => [Topic::All].into(),
            Scope::Mine { .. } => self.identity.default_topics().into_iter().collect(),
        };
        self.prune();
        self.account = Account {
            steady: self.topics.clone(),
            restarts: Some(shared.hub.progress().generation as usize),
            ..Account::default()
        };
        (self.patience, self.has_given_up) = (None, false);
        self.connection = Some(Connection::open(replica, shared, self.identity.clone(), &scope, now));
    }

    /// Says something in the middle of it all.
    pub(super) fn speak(&mut self, random: &mut Random, limits: Limits, now: Now) {
        if self.connection.is_none() {
            return;
        }
        let task = log::id(random.below(limits.tasks));
        let (field, value, topic) = match random.below(4) {
            0 => ("root_id", log::id(0).to_string(), Topic::Root(log::id(0))),
            1 => ("tag", "x".to_owned(), Topic::Tag("x".into())),
            _ => ("task_id", task.to_string(), Topic::Task(task)),
        };
        let is_allowed = self.identity.may_subscribe(&topic);
        let kind =
            random.pick(&["subscribe", "subscribe", "unsubscribe", "get_task_status", "get_active_tasks", "ping"]);
        self.tell(|| format!("says {kind} {topic:?}"));
        match kind {
            "subscribe" if is_allowed && !self.topics.contains(&topic) => {
                self.topics.insert(topic);
            }
            "unsubscribe" => {
                self.topics.remove(&topic);
                self.has_given_up |= self.account.steady.remove(&topic);
                self.account.unsubscribing += 1;
            }
            _ => {}
        }
        let Some(connection) = &mut self.connection else { return };
        if self.request.encoding == Encoding::Json {
            let mut message = json!({"type": kind});
            message[field] = value.into();
            return connection.say(Inbound::Text(message.to_string()), now);
        }
        let text = |number: u8, text: &[u8]| [&[number << 3 | 2, text.len() as u8], text].concat();
        let topic = text(
            match field {
                "task_id" => 1,
                "root_id" => 2,
                _ => 3,
            },
            value.as_bytes(),
        );
        let message = match kind {
            "subscribe" => text(2, &text(1, &topic)),
            "unsubscribe" => text(3, &text(1, &topic)),
            "get_task_status" => text(4, &text(1, b"t1")),
            "get_active_tasks" => text(5, b""),
            _ => text(8, b""),
        };
        connection.say(Inbound::Binary(message), now);
    }

    /// The connection breaks; a frame of which a byte is missing was never received.
    pub(super) fn lose(&mut self, replicas: &[Replica], limits: Limits) {
        self.look(replicas);
        self.judge(replicas, limits);
        self.connection = None;
    }

    // ---- what it hears ---------------------------------------------------------------------------------------------

    /// Looks at every frame that was received whole.
    pub(super) fn look(&mut self, replicas: &[Replica]) {
        let Some(connection) = &mut self.connection else { return };
        let mut received = std::mem::take(&mut connection.received);
        let replica = &replicas[connection.replica];
        while let Some((opcode, payload)) = wire::take_frame(&mut received) {
            self.hear(wire::read(opcode, &payload), replica);
        }
        if let Some(connection) = &mut self.connection {
            connection.received = received;
        }
    }

    fn hear(&mut self, heard: Heard, replica: &Replica) {
        self.tell(|| format!("hears {heard:?}"));
        assert!(self.account.greeted || matches!(heard, Heard::Greeting { .. }), "the greeting comes first: {heard:?}");
        match heard {
            Heard::Greeting { resumed, cursor } => {
                assert!(!self.account.greeted, "greeted twice");
                self.account.greeted = true;
                self.account.resumed = resumed;
                if resumed {
                    assert_eq!(cursor, self.cursor, "resumed from where the client was");
                    self.account.whole_since = self.wants();
                    self.resumed += 1;
                } else {
                    self.account.replaces = true;
                }
            }
            Heard::Page { tasks, cursor, more, reset } => self.page(tasks, cursor, more, reset, replica),
            Heard::Frame { facts, cursor, completed } => {
                let moment = replica.moment_of(&facts).unwrap_or_else(|| panic!("never was: {facts:?}"));
                assert_eq!(cursor.position, moment.position, "the cursor of {facts:?}");
                assert!(self.wants() < Some(cursor.position), "ascending: {cursor} after {:?}", self.cursor);
                assert_eq!(completed, facts.has_ended(), "{facts:?}");
                assert!(self.account.frames.insert(cursor.position), "twice: {facts:?}");
                self.cursor = Some(cursor);
                self.put(facts, moment.position, replica);
            }
            Heard::Removed(task_id) => {
                self.shown.remove(&task_id);
            }
            Heard::Unsubscribed => {
                self.account.unsubscribing -= 1;
                self.prune();
            }
            Heard::Other => {}
        }
    }

    fn page(&mut self, tasks: Vec<Facts>, cursor: Option<Cursor>, more: bool, reset: bool, replica: &Replica) {
        if std::mem::take(&mut self.account.replaces) || reset {
            self.shown.clear();
            self.cursor = None;
            self.account.whole_since = None;
            self.account.frames.clear();
        }
        if reset {
            let next = self.account.restarts.map(|restarts| restarts + 1);
            self.account.restarts = next.filter(|restarts| *restarts == replica.before.len());
        }
        for facts in tasks {
            let moment = replica.moment_of(&facts).unwrap_or_else(|| panic!("never was: {facts:?}"));
            self.put(facts, moment.position, replica);
        }
        if let Some(cursor) = cursor {
            assert!(self.wants() <= Some(cursor.position), "ascending: {cursor} after {:?}", self.cursor);
            self.cursor = Some(cursor);
            if !more && self.account.whole_since.is_none() {
                self.account.whole_since = Some(cursor.position);
            }
        }
    }

    fn put(&mut self, facts: Facts, at: Position, replica: &Replica) {
        assert!(self.sight.sees(&facts), "{facts:?} is none of {:?}'s business", self.sight);
        let known = self.shown.get(&facts.task_id);
        let is_watched = |facts: &Facts| self.topics.iter().any(|topic| facts.is_under(topic));
        // What led to the state in which a task is watched may come with it; so does the state in which it left.
        let is_due = known.is_some() || self.account.unsubscribing > 0 || replica.ever_had(&facts.task_id, is_watched);
        assert!(is_due, "not watched: {facts:?}");
        // A replica that began to read elsewhere may never have been where the client comes from.
        if let Some(known) = known.filter(|known| replica.moment_of(&known.facts).is_some()) {
            assert!(known.at <= at, "backwards, from {:?} to {facts:?}", known.facts);
            let same = known.facts.attempt == facts.attempt && known.facts.step == facts.step;
            let is_another = !replica.had_both(&known.facts, &facts);
            assert!(
                is_another || !same || known.facts.progress <= facts.progress,
                "the bar falls: {:?} {facts:?}",
                known.facts
            );
        }
        self.shown.insert(facts.task_id.clone(), Shown { facts, at });
    }

    /// Takes off the page what is no longer watched.
    fn prune(&mut self) {
        let topics = &self.topics;
        self.shown.retain(|_, shown| topics.iter().any(|topic| shown.facts.is_under(topic)));
    }

    // ---- what it must have heard -----------------------------------------------------------------------------------

    /// Between where the account began and the last cursor, nothing is missing that must not be folded away.
    fn judge(&mut self, replicas: &[Replica], limits: Limits) {
        let Some(connection) = &self.connection else { return };
        let (Some(since), Some(until)) = (self.account.whole_since, self.wants()) else { return };
        let Some(model) = self.account.restarts.and_then(|restarts| replicas[connection.replica].after(restarts))
        else {
            return;
        };
        // A ring that forgets says so when a client resumes; an open session that is slow gets the newest state.
        let until = if limits.keeps_everything() {
            until
        } else if self.account.resumed {
            until.min(connection.opened_at)
        } else {
            return;
        };
        let every = self.request.deliver == Deliver::Every && limits.keeps_everything();
        let steady =
            |facts: &Facts| self.sight.sees(facts) && self.account.steady.iter().any(|topic| facts.is_under(topic));
        // Tasks that were out of sight at some time, or not watched all the time, may be told of in part.
        let moments = || model.moments.values();
        let partly: BTreeSet<&str> =
            moments().filter(|moment| !steady(&moment.facts)).map(|moment| moment.facts.task_id.as_str()).collect();
        for moment in moments().filter(|moment| since < moment.position && moment.position <= until) {
            let is_due = (moment.is_key || every) && !partly.contains(moment.facts.task_id.as_str());
            let is_there = self.account.frames.contains(&moment.position);
            assert!(is_there || !is_due, "missed between {since} and {until}: {moment:?}");
        }
    }

    /// At the end, when nothing moves any more: exactly what should be shown is shown.
    pub(super) fn check(&mut self, replicas: &[Replica], limits: Limits) {
        self.judge(replicas, limits);
        self.prune();
        let replica = &replicas[self.connection.as_ref().expect("a connection").replica];
        let is_due = |facts: &Facts| self.sight.sees(facts) && self.topics.iter().any(|topic| facts.is_under(topic));
        for (facts, at) in replica.model.current().filter(|(facts, _)| is_due(facts)) {
            let task_id = &facts.task_id;
            let Some(shown) = self.shown.get(task_id) else {
                let lacks = |replica: &Replica| replica.model.holds(task_id).is_none_or(|held| held.1 != at);
                let elsewhere =
                    limits.diverges() && replicas.iter().any(|other| lacks(other) || !other.before.is_empty());
                assert!(
                    elsewhere || replica.model.let_go.contains(task_id),
                    "not shown: {:?} {:?} {:?} {facts:?}",
                    self.tells,
                    self.topics,
                    self.sight
                );
                continue;
            };
            let was_there = |other: &Replica| {
                other.ends_with(&shown.facts) || (shown.at >= at && other.moment_of(&shown.facts).is_some())
            };
            let is_good = shown.facts == *facts || (limits.diverges() && replicas.iter().any(was_there));
            assert!(is_good, "shown {:?} instead of {facts:?}", shown.facts);
        }
        for shown in self.shown.values() {
            let held = replica.model.holds(&shown.facts.task_id).filter(|(facts, _)| is_due(facts));
            let was_let_go = replicas.iter().any(|replica| replica.model.let_go.contains(&shown.facts.task_id));
            assert!(held.is_some() || was_let_go || limits.trims, "still shown: {:?}", shown.facts);
        }
    }
}
