//! Random text for keys, psTokens and ids.

use aws_lc_rs::error::Unspecified;

use crate::secret::Secret;

/// `prefix` and 43 base64url characters: 256 bits, which nobody guesses, so that one pass of SHA-256 suffices to store them.
///
/// # Errors
/// When the system gives no randomness.
pub fn text(prefix: &str) -> Result<String, Unspecified> {
    Secret::random().map(|random| format!("{prefix}{}", random.expose()))
}
