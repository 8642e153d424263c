//! The embedded token service: a real server with the four endpoints of the token API.
