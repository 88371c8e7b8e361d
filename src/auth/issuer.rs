//! One issuer of JSON Web Tokens: the keys that it signs with as of now, and what its tokens must say.
//!
//! Refuses to know: other issuers, when keys are looked for.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use super::{
    AuthenticationError, Identity, JwtSettings, Key, KeySetPlace, claims, files,
    key_set::{self, Checked, KeySet},
    published::Published,
};

/// What can be said of a token at once.
pub(super) enum Look {
    Known(Result<Identity, AuthenticationError>),
    /// It names a key that is not here; the issuer may have published it since.
    UnknownKey,
}

/// One issuer.
pub(super) struct Issuer {
    settings: JwtSettings,
    keys: RwLock<Arc<KeySet>>,
    /// Where its keys are published, if they are not in a file.
    pub published: Option<Published>,
}

impl Issuer {
    /// Reads the files that keys are in.
    ///
    /// # Errors
    /// An algorithm, key or combination that cannot be used, in words for the operator.
    pub fn new(settings: JwtSettings) -> Result<Self, String> {
        let published = match &settings.key {
            Key::KeySet(set) => match &set.place {
                KeySetPlace::Url(url) => Some(Published::new(url, set)?),
                KeySetPlace::File(_) => None,
            },
            _ => None,
        };
        let keys = if published.is_some() { KeySet::unknown(&settings)? } else { load(&settings)? };
        Ok(Self { keys: RwLock::new(Arc::new(keys)), settings, published })
    }

    pub fn names(&self) -> &[String] {
        &self.settings.issuer
    }

    /// Checks a token with the keys that are here.
    pub fn look(&self, token: &str, unix_ms: u64) -> Look {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        Look::Known(match keys.check(token) {
            Checked::Good(claims) => claims::identity(&claims, &self.settings, unix_ms),
            Checked::Refused(error) => Err(error),
            Checked::UnknownKey => return Look::UnknownKey,
        })
    }

    /// The files that the keys of such an issuer are in.
    pub fn files(settings: &JwtSettings) -> Vec<PathBuf> {
        match &settings.key {
            Key::Secret(_) => Vec::new(),
            Key::Secrets { current, previous } => {
                current.file.iter().chain(previous.iter().filter_map(|secret| secret.file.as_ref())).cloned().collect()
            }
            Key::PublicKeyFile(path) => vec![path.clone()],
            Key::KeySet(set) => match &set.place {
                KeySetPlace::File(path) => vec![path.clone()],
                KeySetPlace::Url(_) => Vec::new(),
            },
        }
    }

    /// Takes the keys that are in its files now, or keeps those that it has.
    pub fn reload(&self) -> Result<(), String> {
        self.replace(load(&self.settings)?);
        Ok(())
    }

    /// Takes the keys of a published set, or keeps those that it has.
    pub fn take_published(&self, json: &[u8]) -> Result<(), String> {
        self.replace(KeySet::of_json(&self.settings, json)?);
        Ok(())
    }

    /// Lets go of keys that may long be withdrawn.
    pub fn forget(&self) {
        if let Ok(unknown) = KeySet::unknown(&self.settings) {
            self.replace(unknown);
        }
    }

    fn replace(&self, keys: KeySet) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

fn load(settings: &JwtSettings) -> Result<KeySet, String> {
    let at = |path: &PathBuf, why: String| format!("{}: {why}", path.display());
    match &settings.key {
        Key::Secret(secret) => KeySet::of_secrets(settings, &[secret]),
        Key::Secrets { current, previous } => {
            let current = key_set::secret_now(current)?;
            // An empty file says that there is no other any more.
            let previous = previous.as_ref().map(key_set::previous_now).transpose()?.flatten();
            let secrets: Vec<&[u8]> =
                [Some(&current), previous.as_ref()].into_iter().flatten().map(Vec::as_slice).collect();
            KeySet::of_secrets(settings, &secrets)
        }
        Key::PublicKeyFile(path) => KeySet::of_pem(settings, &files::read(path)?).map_err(|why| at(path, why)),
        Key::KeySet(set) => match &set.place {
            KeySetPlace::File(path) => KeySet::of_json(settings, &files::read(path)?).map_err(|why| at(path, why)),
            KeySetPlace::Url(_) => KeySet::unknown(settings),
        },
    }
}
