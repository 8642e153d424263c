//! Random text for keys, psTokens and ids.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// `prefix` and 43 base64url characters: 256 bits, which nobody guesses, so that one pass of SHA-256 suffices to store them.
///
/// # Errors
/// When the system gives no randomness.
pub fn text(prefix: &str) -> Result<String, Unspecified> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes)?;
    let mut text = prefix.to_owned();
    URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
    Ok(text)
}
