//! Messages and tasks as `taskcast.v1.ServerMessage`, commands from `taskcast.v1.ClientMessage`.
//!
//! Refuses to know: frames, JSON.

use prost::Message as _;

use super::{
    AuthenticationErrorCode, Command, CommandError, CommandKind, ConnectionEstablished, Encoding, ErrorCode, RequestId,
    ResumeFailure, ServerMessage, Task, TaskFrame, TaskId, Topic, UserId,
    command_json::{invalid, selector_of, task_id_of},
    event_protobuf::owned,
    native::{DEGRADED, DRAINING, EXPIRING, GREETING, RECOVERED},
    wire::{self, client_message, server_message, topic},
};

/// `task_progress` or `task_completed`.
pub(super) fn task_frame(frame: &TaskFrame) -> Vec<u8> {
    let body = wire::TaskFrame { task: Some((&frame.task).into()), cursor: frame.cursor.to_string() };
    let message = if frame.task.status.is_terminal() {
        server_message::Message::TaskCompleted(body)
    } else {
        server_message::Message::TaskProgress(body)
    };
    wire::ServerMessage { timestamp_ms: frame.applied_at_ms, id: None, message: Some(message) }.encode_to_vec()
}

/// Any message to one client.
pub(super) fn message(message: &ServerMessage, unix_ms: u64) -> Vec<u8> {
    let id = message.id().map(RequestId::to_text);
    wire::ServerMessage { timestamp_ms: unix_ms, id, message: Some(message.into()) }.encode_to_vec()
}

/// Reads a command.
pub(super) fn command(bytes: &[u8]) -> Result<Command, CommandError> {
    let wire = wire::ClientMessage::decode(bytes).map_err(|_| CommandError {
        code: ErrorCode::InvalidMessage,
        message: "not a taskcast.v1.ClientMessage in protobuf".to_owned(),
        id: None,
    })?;
    let id = match wire.id.as_deref() {
        None => None,
        Some(text) => Some(RequestId::from_text(text).ok_or_else(|| invalid("id", "is too long", None))?),
    };
    let kind = match wire.message {
        None => Err(CommandError {
            code: ErrorCode::UnknownType,
            message: "no message that this version knows is set in the ClientMessage".to_owned(),
            id: None,
        }),
        Some(client_message::Message::Subscribe(body)) => selector(body.topic).map(CommandKind::Subscribe),
        Some(client_message::Message::Unsubscribe(body)) => selector(body.topic).map(CommandKind::Unsubscribe),
        Some(client_message::Message::GetTaskStatus(body)) => {
            task_id_of("task_id", &body.task_id).map(CommandKind::GetTaskStatus)
        }
        Some(client_message::Message::GetActiveTasks(_)) => Ok(CommandKind::GetActiveTasks),
        Some(client_message::Message::CancelTask(body)) => {
            task_id_of("task_id", &body.task_id).map(CommandKind::CancelTask)
        }
        Some(client_message::Message::RefreshToken(body)) if body.token.is_empty() => {
            Err(invalid("token", "must not be empty", None))
        }
        Some(client_message::Message::RefreshToken(body)) => Ok(CommandKind::Authenticate { token: body.token }),
        Some(client_message::Message::Ping(body)) => {
            Ok(CommandKind::Ping { client_timestamp: body.timestamp.as_deref().and_then(RequestId::from_text) })
        }
    };
    match kind {
        Ok(kind) => Ok(Command { kind, id }),
        Err(error) => Err(CommandError { id, ..error }),
    }
}

fn selector(topic: Option<wire::Topic>) -> Result<super::Selector, CommandError> {
    match topic.and_then(|topic| topic.topic) {
        None => Ok(super::Selector::Mine),
        Some(topic::Topic::TaskId(id)) => selector_of("task_id", &id),
        Some(topic::Topic::RootId(id)) => selector_of("root_id", &id),
        Some(topic::Topic::Tag(tag)) => selector_of("tag", &tag),
        Some(topic::Topic::UserId(_) | topic::Topic::All(_)) => {
            Err(invalid("topic", "must be task_id, root_id or tag", None))
        }
    }
}

impl From<&Task> for wire::Task {
    fn from(task: &Task) -> Self {
        Self {
            task_id: task.task_id.to_string(),
            user_id: task.user_id.as_ref().map(UserId::to_string),
            name: owned(task.name.as_ref()),
            title: owned(task.title.as_ref()),
            status: wire::Status::from(task.status).into(),
            progress: task.progress,
            current: task.current,
            total: task.total,
            unit: owned(task.unit.as_ref()),
            step: owned(task.step.as_ref()),
            message: owned(task.message.as_ref()),
            attempt: task.attempt,
            parent_id: task.parent_id.as_ref().map(TaskId::to_string),
            root_id: task.root_id.as_ref().map(TaskId::to_string),
            weight: task.weight,
            tags: task.tags.iter().flat_map(|tags| tags.iter()).map(ToString::to_string).collect(),
            result_json: task.result.as_ref().map(|json| json.as_str().to_owned()),
            error: task.error.as_deref().map(Into::into),
            metadata_json: task.metadata.as_ref().map(|json| json.as_str().to_owned()),
            worker: owned(task.worker.as_ref()),
            created_at_ms: task.created_at_ms,
            started_at_ms: task.started_at_ms,
            updated_at_ms: task.updated_at_ms,
            completed_at_ms: task.completed_at_ms,
        }
    }
}

impl From<&Topic> for wire::Topic {
    fn from(topic: &Topic) -> Self {
        let topic = match topic {
            Topic::Task(id) => topic::Topic::TaskId(id.to_string()),
            Topic::Root(id) => topic::Topic::RootId(id.to_string()),
            Topic::Tag(tag) => topic::Topic::Tag(tag.to_string()),
            Topic::Owner(id) => topic::Topic::UserId(id.to_string()),
            Topic::All => topic::Topic::All(true),
        };
        Self { topic: Some(topic) }
    }
}

impl From<&ServerMessage> for server_message::Message {
    fn from(message: &ServerMessage) -> Self {
        match message {
            ServerMessage::ConnectionEstablished(established) => Self::ConnectionEstablished((&**established).into()),
            ServerMessage::ActiveTasks { tasks, cursor, more, reset, .. } => Self::ActiveTasks(wire::ActiveTasks {
                tasks: tasks.iter().map(|frame| (&frame.task).into()).collect(),
                cursor: cursor.map(|cursor| cursor.to_string()),
                more: *more,
                reset: resume_failure(*reset).into(),
            }),
            ServerMessage::TaskRemoved { task_id } => {
                Self::TaskRemoved(wire::TaskRemoved { task_id: task_id.to_string() })
            }
            ServerMessage::TaskStatus { task_id, task, .. } => Self::TaskStatus(wire::TaskStatus {
                task_id: task_id.to_string(),
                task: task.as_ref().map(|frame| (&frame.task).into()),
            }),
            ServerMessage::TaskCancelled { task_id, success, .. } => {
                Self::TaskCancelled(wire::TaskCancelled { task_id: task_id.to_string(), success: *success })
            }
            ServerMessage::Subscribed { topic, .. } => Self::Subscribed(wire::Subscribed { topic: Some(topic.into()) }),
            ServerMessage::Unsubscribed { topic, .. } => {
                Self::Unsubscribed(wire::Unsubscribed { topic: Some(topic.into()) })
            }
            ServerMessage::Pong { client_timestamp, .. } => {
                Self::Pong(wire::Pong { client_timestamp: client_timestamp.as_ref().map(RequestId::to_text) })
            }
            ServerMessage::SourceDegraded { fresh_until_ms } => Self::SourceDegraded(wire::SourceDegraded {
                message: DEGRADED.to_owned(),
                fresh_until_ms: *fresh_until_ms,
            }),
            ServerMessage::SourceRecovered { degraded_ms } => Self::SourceRecovered(wire::SourceRecovered {
                message: RECOVERED.to_owned(),
                degraded_ms: *degraded_ms,
            }),
            ServerMessage::ServerDraining { reconnect_after_ms } => Self::ServerDraining(wire::ServerDraining {
                message: DRAINING.to_owned(),
                reconnect_after_ms: *reconnect_after_ms,
            }),
            ServerMessage::TokenExpiring { token_expires_at_ms, refresh_until_ms } => {
                Self::TokenExpiring(wire::TokenExpiring {
                    message: EXPIRING.to_owned(),
                    token_expires_at_ms: *token_expires_at_ms,
                    refresh_until_ms: *refresh_until_ms,
                })
            }
            ServerMessage::TokenRefreshed { token_expires_at_ms, .. } => {
                Self::TokenRefreshed(wire::TokenRefreshed { token_expires_at_ms: *token_expires_at_ms })
            }
            ServerMessage::Error { error_code, message, .. } => Self::Error(wire::Error {
                error_code: wire::ErrorCode::from(*error_code).into(),
                message: message.clone(),
            }),
            ServerMessage::AuthenticationError { error_code, message } => {
                Self::AuthenticationError(wire::AuthenticationError {
                    error_code: wire::AuthenticationErrorCode::from(*error_code).into(),
                    message: message.clone(),
                })
            }
        }
    }
}

impl From<&ConnectionEstablished> for wire::ConnectionEstablished {
    fn from(established: &ConnectionEstablished) -> Self {
        Self {
            message: GREETING.to_owned(),
            connection_id: established.connection_id.clone(),
            user_id: established.user_id.as_ref().map(UserId::to_string),
            protocol: Encoding::Protobuf.protocol().to_owned(),
            cursor: established.cursor.map(|cursor| cursor.to_string()),
            resumed: established.resumed,
            resume_failure: resume_failure(established.resume_failure).into(),
            heartbeat_interval_ms: established.heartbeat_interval_ms,
            token_expires_at_ms: established.token_expires_at_ms,
            limits: Some(wire::ClientLimits {
                message_max_bytes: established.limits.message_max_bytes,
                subscriptions_max: established.limits.subscriptions_max,
            }),
            reconnect: Some(wire::Reconnect {
                min_ms: established.reconnect_min_ms,
                max_ms: established.reconnect_max_ms,
            }),
        }
    }
}

fn resume_failure(failure: Option<ResumeFailure>) -> wire::ResumeFailure {
    match failure {
        None => wire::ResumeFailure::Unspecified,
        Some(ResumeFailure::Malformed) => wire::ResumeFailure::Malformed,
        Some(ResumeFailure::Trimmed) => wire::ResumeFailure::Trimmed,
        Some(ResumeFailure::AnotherLog) => wire::ResumeFailure::AnotherLog,
        Some(ResumeFailure::NotReady) => wire::ResumeFailure::NotReady,
        Some(ResumeFailure::RightsChanged) => wire::ResumeFailure::RightsChanged,
    }
}

impl From<ErrorCode> for wire::ErrorCode {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidMessage => Self::InvalidMessage,
            ErrorCode::UnknownType => Self::UnknownType,
            ErrorCode::InvalidField => Self::InvalidField,
            ErrorCode::Forbidden => Self::Forbidden,
            ErrorCode::LimitReached => Self::LimitReached,
            ErrorCode::Unavailable => Self::Unavailable,
            ErrorCode::TokenRefused => Self::TokenRefused,
        }
    }
}

impl From<AuthenticationErrorCode> for wire::AuthenticationErrorCode {
    fn from(code: AuthenticationErrorCode) -> Self {
        match code {
            AuthenticationErrorCode::AuthRequired => Self::AuthRequired,
            AuthenticationErrorCode::InvalidToken => Self::InvalidToken,
            AuthenticationErrorCode::ExpiredToken => Self::ExpiredToken,
            AuthenticationErrorCode::NoUserAvailable => Self::NoUserAvailable,
        }
    }
}
