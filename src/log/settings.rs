//! Which log, where it is, and how much of it is kept. Owns the addresses and keeps their passwords out of sight.
//! Refuses to know: how to connect.

use std::{path::PathBuf, time::Duration};

use crate::tls::{self, Files, Pem};

/// Settings of the log; every field has a key in the configuration's `[log]` table.
#[derive(Clone, Debug)]
pub struct Settings {
    pub backend: Backend,
    /// Redis: the stream's key. RabbitMQ: the queue's name, at most 255 bytes.
    pub key: String,
    /// RabbitMQ: the durable topic exchange that workers publish to, at most 255 bytes.
    pub exchange: String,
    /// Redis: `MAXLEN ~` of appends; memory: the ring's length.
    pub max_events: u64,
    /// RabbitMQ: `x-max-age` in seconds, when the queue is created here.
    pub max_age_seconds: u64,
    /// RabbitMQ: `x-max-length-bytes`, when the queue is created here.
    pub max_bytes: u64,
    /// Redis: how many dead letters are kept; 0 keeps none, on both brokers.
    pub dead_letters_max: u64,
    /// How many bytes of dead letters are kept.
    pub dead_letters_max_bytes: u64,
    /// RabbitMQ: unacknowledged deliveries; Redis: entries per read.
    pub read_batch: u16,
    /// An append fails after this long.
    pub append_timeout: Duration,
    /// Redis: an append is confirmed only when so many replicas have it too.
    pub wait_replicas: u8,
    /// The longest wait between two attempts to connect.
    pub reconnect_max: Duration,
    /// PEM file of certificate authorities to trust: besides the system's for `amqps://`, instead of them for
    /// `rediss://`.
    pub tls_ca_file: Option<PathBuf>,
    /// The certificate and key to show to a broker that asks for one.
    pub tls_client: Option<Files>,
}

/// Which broker, with its address. `Debug` shows no password.
#[derive(Clone)]
pub enum Backend {
    Memory,
    Redis { url: String },
    Amqp { url: String },
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "Memory",
            Self::Redis { .. } => "Redis",
            Self::Amqp { .. } => "Amqp",
        })
    }
}

/// The files for TLS to a broker, as they are now. They are read for every connection, so that what was renewed is used
/// with the next one.
#[derive(Debug)]
pub(super) struct TlsFiles {
    /// The certificate authorities of [`Settings::tls_ca_file`], in PEM.
    pub authorities: Option<String>,
    pub client: Option<Pem>,
}

/// Where [`TlsFiles`] are read from.
#[derive(Clone, Debug)]
pub(super) struct TlsPaths {
    authorities: Option<PathBuf>,
    client: Option<Files>,
}

impl TlsPaths {
    pub(super) fn of(settings: &Settings) -> Self {
        Self { authorities: settings.tls_ca_file.clone(), client: settings.tls_client.clone() }
    }

    /// Without any, what was made once stays good.
    pub(super) fn is_empty(&self) -> bool {
        self.authorities.is_none() && self.client.is_none()
    }

    /// Reads and judges the files.
    ///
    /// # Errors
    /// A file that cannot be read or used, with its path.
    pub(super) fn read(&self) -> Result<TlsFiles, String> {
        Ok(TlsFiles { authorities: self.authorities()?, client: self.client()? })
    }

    fn authorities(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.authorities else { return Ok(None) };
        let pem = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the certificate authorities in {}: {error}", path.display()))?;
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err(format!("{} holds no PEM certificate", path.display()));
        }
        Ok(Some(pem))
    }

    fn client(&self) -> Result<Option<Pem>, String> {
        let Some(files) = &self.client else { return Ok(None) };
        let pem = files.read().map_err(|why| format!("the certificate for the broker: {why}"))?;
        tls::check_identity(&pem).map_err(|unfit| {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            format!("the certificate {certificate} for the broker, with the key {key}: {}", unfit.words())
        })?;
        Ok(Some(pem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_in_the_debug_form() {
        let backend = Backend::Redis { url: "redis://u:hunter2@localhost".to_owned() };
        assert_eq!(format!("{backend:?}"), "Redis");
    }
}
