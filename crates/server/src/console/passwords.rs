//! Passwords: hashed with argon2id, never kept, and guessed at no faster than the settings here allow.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::store::locked;

/// The shortest password, in characters.
pub(super) const SHORTEST: usize = 12;
/// The longest, in octets.
pub(super) const LONGEST: usize = 256;
/// Hashes that are computed at a time: each takes 19 MiB and some 20 ms of a processor.
const AT_A_TIME: usize = 2;
/// Failures of one name, or of one address, within [`WITHIN`]; then it has to wait.
const FAILURES: usize = 8;
const WITHIN: Duration = Duration::from_secs(600);
/// Names and addresses of which failures are remembered.
const REMEMBERED: usize = 10_000;

/// Who has failed to sign in, and the places in which passwords are checked.
pub(super) struct Passwords {
    places: Semaphore,
    failures: Mutex<BTreeMap<String, Vec<Instant>>>,
    /// Nobody's: checking against it takes as long as checking against somebody's.
    nobodys: String,
}

/// Too many tried; after so many seconds others may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(pub(super) u64);

impl Passwords {
    pub(super) fn new() -> Self {
        let nobodys = hash("a password that nobody has").unwrap_or_default();
        Self { places: Semaphore::new(AT_A_TIME), failures: Mutex::default(), nobodys }
    }

    /// Whether somebody may try, by what failed before under this name and from this address.
    pub(super) fn may_try(&self, keys: &[String]) -> Result<(), Wait> {
        let mut failures = locked(&self.failures);
        for key in keys {
            let Some(times) = failures.get_mut(key) else { continue };
            times.retain(|at| at.elapsed() < WITHIN);
            if let Some(first) = times.first().filter(|_| times.len() >= FAILURES) {
                return Err(Wait(WITHIN.saturating_sub(first.elapsed()).as_secs().max(1)));
            }
        }
        Ok(())
    }

    pub(super) fn failed(&self, keys: &[String]) {
        let mut failures = locked(&self.failures);
        if failures.len() >= REMEMBERED {
            failures.retain(|_, times| times.last().is_some_and(|at| at.elapsed() < WITHIN));
        }
        for key in keys.iter().take(REMEMBERED.saturating_sub(failures.len())) {
            failures.entry(key.clone()).or_default().push(Instant::now());
        }
    }

    /// Whether a password is the one of this hash; without one it takes as long and is not.
    pub(super) async fn is_right(&self, password: String, stored: Option<String>) -> bool {
        let is_somebodys = stored.is_some();
        let hash = stored.unwrap_or_else(|| self.nobodys.clone());
        let Ok(_place) = self.places.acquire().await else { return false };
        let checked = tokio::task::spawn_blocking(move || {
            let hash = PasswordHash::new(&hash).ok()?;
            Argon2::default().verify_password(password.as_bytes(), &hash).ok()
        });
        matches!(checked.await, Ok(Some(()))) && is_somebodys
    }

    /// The hash of a new password; `None` where the system gave no random numbers.
    pub(super) async fn hash(&self, password: String) -> Option<String> {
        let _place = self.places.acquire().await.ok()?;
        tokio::task::spawn_blocking(move || hash(&password)).await.ok().flatten()
    }
}

/// Whether somebody may have this password.
pub(super) fn is_usable(password: &str) -> bool {
    password.chars().count() >= SHORTEST && password.len() <= LONGEST
}

fn hash(password: &str) -> Option<String> {
    let mut salt = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut salt).ok()?;
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt).ok()?;
    Some(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_right_for_its_own_hash_alone() {
        let passwords = Passwords::new();
        let stored = passwords.hash("correct horse battery".to_owned()).await.unwrap();
        assert!(stored.starts_with("$argon2id$"), "{stored}");
        assert!(passwords.is_right("correct horse battery".to_owned(), Some(stored.clone())).await);
        assert!(!passwords.is_right("correct horse batterx".to_owned(), Some(stored)).await);
        assert!(!passwords.is_right("correct horse battery".to_owned(), None).await);
        assert!(!passwords.is_right("a password that nobody has".to_owned(), None).await);
        assert!(!passwords.is_right("correct horse battery".to_owned(), Some("not a hash".to_owned())).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_too_often_has_to_wait() {
        let passwords = Passwords::new();
        let keys = ["name:alice".to_owned(), "from:127.0.0.1".to_owned()];
        for _ in 0..FAILURES {
            assert_eq!(passwords.may_try(&keys), Ok(()));
            passwords.failed(&keys);
        }
        assert_eq!(passwords.may_try(&keys), Err(Wait(WITHIN.as_secs())));
        assert_eq!(passwords.may_try(&keys[1..]), Err(Wait(WITHIN.as_secs())), "nor under another name");
        assert_eq!(passwords.may_try(&["name:bob".to_owned()]), Ok(()));
        tokio::time::advance(WITHIN).await;
        assert_eq!(passwords.may_try(&keys), Ok(()));
    }
}
