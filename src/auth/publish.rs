//! The right to publish: nothing, everything, or what belongs to certain users or begins with certain prefixes. Pure.
//!
//! Refuses to know: which tasks there are (a caller says whose one is).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::proto::{Event, TaskId, UserId};

/// What a token may publish. `None`: nothing. One pointer, as every open connection holds one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PublishRight(Option<Box<Limits>>);

/// Every limit that there is holds; without any, everything may be published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Limits {
    /// Tasks of these users only.
    users: Option<BTreeSet<UserId>>,
    /// Tasks, and groups, whose identifier begins with one of these only.
    task_prefixes: Option<Vec<String>>,
}

/// Which limit an event is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    User,
    TaskPrefix,
}

impl Limit {
    pub const ALL: [Self; 2] = [Self::User, Self::TaskPrefix];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::TaskPrefix => "task_prefix",
        }
    }
}

/// Why an event may not be published, for the worker's developer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    pub limit: Limit,
    pub field: &'static str,
    pub detail: &'static str,
}

impl PublishRight {
    #[must_use]
    pub fn everything() -> Self {
        Self(Some(Box::default()))
    }

    /// Reads `publish` of the claim: `true`, `false`, or an object of limits. A limit that is not known is not ignored: the
    /// token would be good for more than whoever made it meant.
    ///
    /// # Errors
    /// What is wrong, to be put behind the name of the claim.
    pub(super) fn of(claim: Option<&Value>) -> Result<Self, String> {
        match claim {
            None | Some(Value::Bool(false)) => Ok(Self::default()),
            Some(Value::Bool(true)) => Ok(Self::everything()),
            Some(Value::Object(limits)) => {
                if limits.is_empty() || limits.keys().any(|name| name != "users" && name != "task_prefixes") {
                    return Err("names `users`, `task_prefixes` or both, and nothing else".to_owned());
                }
                let users = limits.get("users").map(users).transpose()?;
                let task_prefixes = limits.get("task_prefixes").map(prefixes).transpose()?;
                Ok(Self(Some(Box::new(Limits { users, task_prefixes }))))
            }
            Some(_) => Err("must be true, false or an object of limits".to_owned()),
        }
    }

    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// May this event be published? `owner_of` says whose a task is that is held: `None` when it is not held, `Some(None)`
    /// when it is nobody's.
    ///
    /// # Errors
    /// The first limit that it is beyond.
    pub fn check(&self, event: &Event, owner_of: impl Fn(&TaskId) -> Option<Option<UserId>>) -> Result<(), Forbidden> {
        let detail = "the token may not publish";
        let limits = self.0.as_deref().ok_or(Forbidden { limit: Limit::User, field: "task_id", detail })?;
        limits.check(event, owner_of)
    }

    /// What may be published depends on whose tasks there are.
    #[must_use]
    pub fn needs_owners(&self) -> bool {
        self.0.as_ref().is_some_and(|limits| limits.users.is_some())
    }
}

impl Limits {
    fn check(&self, event: &Event, owner_of: impl Fn(&TaskId) -> Option<Option<UserId>>) -> Result<(), Forbidden> {
        let named = [
            ("task_id", Some(&event.task_id)),
            ("parent_id", event.parent_id.as_ref()),
            ("root_id", event.root_id.as_ref()),
        ];
        let named = named.into_iter().filter_map(|(field, id)| Some((field, id?)));
        if let Some(prefixes) = &self.task_prefixes {
            let fits = |id: &TaskId| prefixes.iter().any(|prefix| id.as_str().starts_with(prefix.as_str()));
            if let Some((field, _)) = named.clone().find(|(_, id)| !fits(id)) {
                let detail = "begins with none of the token's `task_prefixes`";
                return Err(Forbidden { limit: Limit::TaskPrefix, field, detail });
            }
        }
        let Some(users) = &self.users else { return Ok(()) };
        if !event.user_id.as_ref().is_some_and(|user| users.contains(user)) {
            let detail = "must be one of the token's `users`, in every event";
            return Err(Forbidden { limit: Limit::User, field: "user_id", detail });
        }
        // An event may change whose a task is, and what is in a group: neither is this token's to take from others.
        let is_foreign =
            |id: &TaskId| owner_of(id).is_some_and(|owner| !owner.is_some_and(|user| users.contains(&user)));
        match named.clone().find(|(_, id)| is_foreign(id)) {
            Some((field, _)) => {
                Err(Forbidden { limit: Limit::User, field, detail: "is not a task of the token's `users`" })
            }
            None => Ok(()),
        }
    }
}

fn users(value: &Value) -> Result<BTreeSet<UserId>, String> {
    let wrong = || "`users` must be an array of strings or integers".to_owned();
    let read = |user: &Value| {
        let text = match user {
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_u64() || number.is_i64() => number.to_string(),
            _ => return Err(wrong()),
        };
        UserId::parse(&text).map_err(|why| format!("`users`: a user {why}"))
    };
    value.as_array().ok_or_else(wrong)?.iter().map(read).collect()
}

fn prefixes(value: &Value) -> Result<Vec<String>, String> {
    // An empty one would be no limit, and was hardly meant.
    let read = |prefix: &Value| prefix.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let prefixes: Option<Vec<String>> = value.as_array().and_then(|prefixes| prefixes.iter().map(read).collect());
    prefixes.ok_or_else(|| "`task_prefixes` must be an array of strings that are not empty".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::proto::ContentType;

    fn right(claim: &Value) -> PublishRight {
        PublishRight::of(Some(claim)).unwrap()
    }

    /// Held are `theirs`, of u2; `mine`, of u1; and `nobodys`.
    fn field_refused(right: &PublishRight, event: &Value) -> Option<&'static str> {
        let event = Event::decode(ContentType::Json, event.to_string().as_bytes()).unwrap();
        let owner_of = |id: &TaskId| match id.as_str() {
            "theirs" | "a-theirs" => Some(UserId::parse("u2").ok()),
            "mine" => Some(UserId::parse("u1").ok()),
            "nobodys" => Some(None),
            _ => None,
        };
        right.check(&event, owner_of).err().map(|forbidden| forbidden.field)
    }

    #[test]
    fn the_claim_is_a_yes_a_no_or_limits_and_nothing_is_guessed() {
        assert_eq!(PublishRight::of(None), Ok(PublishRight::default()));
        assert_eq!(right(&json!(false)), PublishRight::default());
        assert_eq!(right(&json!(true)), PublishRight::everything());
        assert!(!right(&json!({"task_prefixes": ["a"]})).needs_owners());
        assert!(right(&json!({"users": ["u1", 7], "task_prefixes": ["a"]})).needs_owners());
        for wrong in [
            json!(null),
            json!("yes"),
            json!(1),
            json!(["u1"]),
            json!({}),
            json!({"tags": ["x"]}),
            json!({"users": ["u1"], "tags": ["x"]}),
            json!({"users": "u1"}),
            json!({"users": null}),
            json!({"users": [""]}),
            json!({"users": [1.5]}),
            json!({"users": ["u".repeat(256)]}),
            json!({"task_prefixes": "a"}),
            json!({"task_prefixes": [""]}),
            json!({"task_prefixes": [1]}),
        ] {
            assert!(PublishRight::of(Some(&wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_limited_to_users_publishes_for_them_and_takes_nothing_from_others() {
        let right = right(&json!({"users": ["u1", 7]}));
        for (event, refused) in [
            (json!({"task_id": "new", "user_id": "u1"}), None),
            (json!({"task_id": "new", "user_id": 7}), None),
            (json!({"task_id": "mine", "user_id": "u1"}), None),
            (json!({"task_id": "new", "user_id": "u1", "parent_id": "mine", "root_id": "unheard-of"}), None),
            (json!({"task_id": "mine"}), Some("user_id")),
            (json!({"task_id": "new", "user_id": "u2"}), Some("user_id")),
            (json!({"task_id": "theirs", "user_id": "u2"}), Some("user_id")),
            (json!({"task_id": "theirs", "user_id": "u1"}), Some("task_id")),
            (json!({"task_id": "nobodys", "user_id": "u1"}), Some("task_id")),
            (json!({"task_id": "new", "user_id": "u1", "parent_id": "theirs"}), Some("parent_id")),
            (json!({"task_id": "new", "user_id": "u1", "root_id": "nobodys"}), Some("root_id")),
        ] {
            assert_eq!(field_refused(&right, &event), refused, "{event}");
        }
    }

    #[test]
    fn a_token_limited_to_prefixes_publishes_below_them_groups_included() {
        let prefixes = right(&json!({"task_prefixes": ["a-", "b/"]}));
        for (event, refused) in [
            (json!({"task_id": "a-1"}), None),
            (json!({"task_id": "a-theirs", "user_id": "u9", "root_id": "b/2", "parent_id": "a-"}), None),
            (json!({"task_id": "b-1"}), Some("task_id")),
            (json!({"task_id": "xa-1"}), Some("task_id")),
            (json!({"task_id": "A-1"}), Some("task_id")),
            (json!({"task_id": "a-1", "parent_id": "c"}), Some("parent_id")),
            (json!({"task_id": "a-1", "root_id": "c"}), Some("root_id")),
        ] {
            assert_eq!(field_refused(&prefixes, &event), refused, "{event}");
        }
        let both = right(&json!({"task_prefixes": ["a-"], "users": ["u1"]}));
        assert_eq!(field_refused(&both, &json!({"task_id": "a-1", "user_id": "u1"})), None);
        assert_eq!(field_refused(&both, &json!({"task_id": "a-1", "user_id": "u2"})), Some("user_id"));
        assert_eq!(field_refused(&both, &json!({"task_id": "a-theirs", "user_id": "u1"})), Some("task_id"));
        assert_eq!(field_refused(&both, &json!({"task_id": "b", "user_id": "u1"})), Some("task_id"));
    }

    #[test]
    fn an_empty_list_lets_nothing_through() {
        let event = json!({"task_id": "a", "user_id": "u1"});
        assert_eq!(field_refused(&right(&json!({"users": []})), &event), Some("user_id"));
        assert_eq!(field_refused(&right(&json!({"task_prefixes": []})), &event), Some("task_id"));
        assert_eq!(field_refused(&PublishRight::default(), &event), Some("task_id"));
        assert_eq!(field_refused(&PublishRight::everything(), &event), None);
    }
}
