//! The query options of a WebSocket's address. Unknown ones are ignored, because front ends add their own; a known one
//! with an impossible value is refused before the upgrade, by name.
//!
//! Refuses to know: tokens, what the options do.

use std::{str::FromStr, time::Duration};

use super::{head::Head, problem::HttpError};
use crate::{proto::Encoding, session::Deliver};

/// The longest `throttle_ms`.
const THROTTLE_MAX_MS: u64 = 60_000;

/// What was asked for; the defaults are what an absent option means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub cursor: Option<String>,
    /// `dialect=celery`.
    pub celery: bool,
    pub deliver: Deliver,
    pub throttle: Duration,
    /// `watch=all`.
    pub everything: bool,
}

impl Options {
    /// # Errors
    /// Names the option and what it may be.
    pub fn of(head: &Head) -> Result<Self, HttpError> {
        let mut options = Self::default();
        for (name, value) in head.options() {
            match &*name {
                // A client without a cursor yet may well send an empty one.
                "cursor" => options.cursor = Some(value.into_owned()).filter(|cursor| !cursor.is_empty()),
                "dialect" => {
                    options.celery = choice("dialect", &value, &[("taskcast", false), ("celery", true)])?;
                }
                "deliver" => {
                    options.deliver =
                        choice("deliver", &value, &[("latest", Deliver::Latest), ("every", Deliver::Every)])?;
                }
                "throttle_ms" => options.throttle = throttle(&value)?,
                "watch" => options.everything = choice("watch", &value, &[("own", false), ("all", true)])?,
                _ => {}
            }
        }
        Ok(options)
    }

    /// The encoding, given what the subprotocol asks for.
    ///
    /// # Errors
    /// There is no binary form of another dialect.
    pub fn encoding(&self, subprotocol: Encoding) -> Result<Encoding, HttpError> {
        match (self.celery, subprotocol) {
            (true, Encoding::Protobuf) => {
                Err(HttpError::bad_option("dialect", "`dialect=celery` is JSON; taskcast.v1.proto cannot carry it."))
            }
            (true, _) => Ok(Encoding::Celery),
            (false, encoding) => Ok(encoding),
        }
    }
}

fn choice<T: Copy>(name: &'static str, value: &str, choices: &[(&str, T)]) -> Result<T, HttpError> {
    if let Some((_, choice)) = choices.iter().find(|(text, _)| *text == value) {
        return Ok(*choice);
    }
    let known: Vec<String> = choices.iter().map(|(text, _)| format!("`{text}`")).collect();
    Err(HttpError::bad_option(name, format!("`{name}` is {}.", known.join(" or "))))
}

fn throttle(value: &str) -> Result<Duration, HttpError> {
    let milliseconds = u64::from_str(value).ok().filter(|&ms| ms <= THROTTLE_MAX_MS);
    milliseconds.map(Duration::from_millis).ok_or_else(|| {
        HttpError::bad_option("throttle_ms", format!("`throttle_ms` is a whole number from 0 to {THROTTLE_MAX_MS}."))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::head::tests::head, *};

    #[test]
    fn options_are_read_decoded_and_unknown_ones_ignored() {
        let query = "_=1&cursor=1.a.0%2E1&dialect=celery&deliver=every&throttle_ms=250&watch=all&token=t&user=7";
        let options = Options::of(&head(query, &[])).unwrap();
        assert_eq!(
            options,
            Options {
                cursor: Some("1.a.0.1".to_owned()),
                celery: true,
                deliver: Deliver::Every,
                throttle: Duration::from_millis(250),
                everything: true,
            }
        );
    }

    #[test]
    fn absent_and_default_options_are_the_same() {
        let spelled_out = "dialect=taskcast&deliver=latest&throttle_ms=0&watch=own&cursor=";
        assert_eq!(Options::of(&head("", &[])).unwrap(), Options::default());
        assert_eq!(Options::of(&head(spelled_out, &[])).unwrap(), Options::default());
    }

    #[test]
    fn an_impossible_value_is_refused_by_the_name_of_its_option() {
        for query in [
            "dialect=Celery",
            "dialect=",
            "deliver=all",
            "throttle_ms=-1",
            "throttle_ms=60001",
            "throttle_ms=1.5",
            "throttle_ms=",
            "watch=everything",
        ] {
            let error = Options::of(&head(query, &[])).unwrap_err();
            let name = query.split('=').next().unwrap();
            assert_eq!(error.status(), 400, "{query}");
            assert!(format!("{error:?}").contains(&format!("`{name}` is")), "{query} {error:?}");
        }
    }

    #[test]
    fn the_dialect_of_celery_has_no_binary_form() {
        let celery = Options { celery: true, ..Options::default() };
        assert_eq!(celery.encoding(Encoding::Json).unwrap(), Encoding::Celery);
        assert_eq!(celery.encoding(Encoding::Protobuf).unwrap_err().status(), 400);
        assert_eq!(Options::default().encoding(Encoding::Protobuf).unwrap(), Encoding::Protobuf);
    }
}
