//! Sinks: tokens written to files, for applications that read theirs there.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::{Mounted, Token, Validate};
use super::units::Mode;

/// A token that is kept in a file: written anew on each renewal, removed on exit.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// The parameters of `create_token`.
    #[serde(default)]
    pub token: Token,
    /// How tokens are checked.
    #[serde(default)]
    pub validate: Validate,
    /// bearerd's own key.
    pub credential: SinkCredential,
    /// The file. It never holds half a token.
    #[schemars(with = "String", extend("format" = "path"))]
    pub path: PathBuf,
    /// Its mode, in octal.
    #[serde(default = "owner_reads")]
    pub mode: Mode,
    /// Not ready before the first token is in the file: a sink is there to have one.
    #[serde(default = "yes")]
    pub keep_warm: bool,
}

/// Whose token a sink holds.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkCredential {
    /// bearerd's own key.
    pub mounted: Mounted,
}

const fn owner_reads() -> Mode {
    Mode(0o400)
}

const fn yes() -> bool {
    true
}
