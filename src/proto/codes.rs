//! Every code that a client may meet. `proto/taskcast/v1/contract.json` lists the same, with what the client does next.

/// In `error` frames: the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not JSON, not an object, no `type`, or not the protobuf asked for.
    InvalidMessage,
    /// A `type` that this version does not know.
    UnknownType,
    /// A field is missing or wrong; the message names it.
    InvalidField,
    /// The token does not allow it.
    Forbidden,
    /// A named limit is reached; the message names it.
    LimitReached,
    /// The service cannot do it now; try again.
    Unavailable,
    /// The token of `refresh_token` is no good here; the one before goes on to hold.
    TokenRefused,
}

/// In the `authentication_error` frame, which is followed by close 4001.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthenticationErrorCode {
    AuthRequired,
    InvalidToken,
    ExpiredToken,
    NoUserAvailable,
}

/// WebSocket close codes that the service sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    Normal = 1000,
    ProtocolError = 1002,
    UnsupportedData = 1003,
    InvalidPayload = 1007,
    Policy = 1008,
    TooLarge = 1009,
    InternalError = 1011,
    Restart = 1012,
    TryAgainLater = 1013,
    Authentication = 4001,
    NotAllowed = 4003,
}

impl ErrorCode {
    pub const ALL: [Self; 7] = [
        Self::InvalidMessage,
        Self::UnknownType,
        Self::InvalidField,
        Self::Forbidden,
        Self::LimitReached,
        Self::Unavailable,
        Self::TokenRefused,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidMessage => "INVALID_MESSAGE",
            Self::UnknownType => "UNKNOWN_TYPE",
            Self::InvalidField => "INVALID_FIELD",
            Self::Forbidden => "FORBIDDEN",
            Self::LimitReached => "LIMIT_REACHED",
            Self::Unavailable => "UNAVAILABLE",
            Self::TokenRefused => "TOKEN_REFUSED",
        }
    }
}

impl AuthenticationErrorCode {
    pub const ALL: [Self; 4] = [Self::AuthRequired, Self::InvalidToken, Self::ExpiredToken, Self::NoUserAvailable];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthRequired => "AUTH_REQUIRED",
            Self::InvalidToken => "INVALID_TOKEN",
            Self::ExpiredToken => "EXPIRED_TOKEN",
            Self::NoUserAvailable => "NO_USER_AVAILABLE",
        }
    }
}

impl CloseCode {
    pub const ALL: [Self; 11] = [
        Self::Normal,
        Self::ProtocolError,
        Self::UnsupportedData,
        Self::InvalidPayload,
        Self::Policy,
        Self::TooLarge,
        Self::InternalError,
        Self::Restart,
        Self::TryAgainLater,
        Self::Authentication,
        Self::NotAllowed,
    ];

    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }
}
