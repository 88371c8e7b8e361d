//! Identifiers that strangers send: a task's and a user's. Once parsed they are known to be short and printable.

use std::{borrow::Borrow, fmt, sync::Arc};

/// The longest identifier in bytes.
pub const ID_MAX_BYTES: usize = 255;

/// Tasks whose id begins with this are the service's own: each replica's delivery canary. Nobody else may publish or
/// see them.
pub const CANARY_ID_PREFIX: &str = "taskcast:canary:";

/// Why a string is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    Empty,
    TooLong { bytes: usize },
    ControlCharacter,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "must not be empty"),
            Self::TooLong { bytes } => write!(f, "has {bytes} bytes, more than {ID_MAX_BYTES}"),
            Self::ControlCharacter => write!(f, "must not contain control characters"),
        }
    }
}

impl std::error::Error for IdError {}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_MAX_BYTES {
        return Err(IdError::TooLong { bytes: text.len() });
    }
    if has_control_character(text) {
        return Err(IdError::ControlCharacter);
    }
    Ok(())
}

/// Nearly all text of workers is ASCII, which needs no decoding to tell.
pub(super) fn has_control_character(text: &str) -> bool {
    if text.is_ascii() {
        return text.bytes().any(|byte| byte.is_ascii_control());
    }
    text.chars().any(char::is_control)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts 1 to [`ID_MAX_BYTES`] bytes of UTF-8 without control characters.
            ///
            /// # Errors
            /// Says which of these rules the text breaks.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok(Self(text.into()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// Names one task, for ever. Chosen by the worker.
    TaskId
);
id!(
    /// Names one user: the owner of a task, the subject of a token. Numbers are compared as their decimal text.
    UserId
);

impl TaskId {
    /// The id of one replica's delivery canary. `replica` tells it from the others'.
    #[must_use]
    pub fn canary(replica: uuid::Uuid) -> Self {
        Self(format!("{CANARY_ID_PREFIX}{replica}").into())
    }

    /// The service keeps ids like this for itself.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(CANARY_ID_PREFIX)
    }
}
